//! The memory of this program holds keys, so it is not written to core dumps, nor shown to other
//! processes of the same user; unless a person who looks for a fault says so by `COUNTERSIGN_DEBUG`.

use rustix::io::Result;
use rustix::process::{Resource, Rlimit, setrlimit};

const VARIABLE: &str = "COUNTERSIGN_DEBUG";

/// From here on this process leaves no core dump, and neither do those that it starts.
pub fn refuse_dumps() {
    #[expect(
        clippy::disallowed_methods,
        reason = "the command line may read the environment"
    )]
    if std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty()) {
        tracing::warn!("`{VARIABLE}` is set: a core dump of this process may hold keys");
        return;
    }
    if let Err(error) = refuse() {
        tracing::warn!(%error, "a core dump of this process may hold keys");
    }
}

fn refuse() -> Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    // A limit does not stop a program that the kernel pipes dumps to; this does.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::process::getrlimit;

    use super::*;

    #[test]
    fn there_are_none_from_then_on() {
        refuse().unwrap();
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        #[cfg(target_os = "linux")]
        assert_eq!(
            rustix::process::dumpable_behavior(),
            Ok(rustix::process::DumpableBehavior::NotDumpable)
        );
    }
}
