//! Who is at the keyboard, as the operating system tells it, for the registry's record.

/// `user@host`. It is a note for people, not a proof.
#[must_use]
pub fn actor() -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "the command line may read the environment"
    )]
    let variable = |name| std::env::var(name).ok();
    let user = ["USER", "LOGNAME"]
        .into_iter()
        .find_map(variable)
        .filter(|user| !user.is_empty());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let text = format!("{}@{}", user.as_deref().unwrap_or("unknown"), host.trim());
    text.chars().filter(|c| !c.is_control()).take(255).collect()
}
