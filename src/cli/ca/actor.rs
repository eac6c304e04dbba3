//! Who is at the keyboard, as the operating system tells it, for the registry's record.
//!
//! The name comes from the user id of this process, not from the environment: a variable is missing
//! under a service manager, and anybody may set it.

/// Where the names of user ids stand; accounts of a directory service are told by their number.
const ACCOUNTS: &str = "/etc/passwd";

/// `user@host`, or `uid 1000@host` where the id has no name. It is a note for people, not a proof.
#[must_use]
pub fn actor() -> String {
    let id = rustix::process::getuid().as_raw();
    let accounts = std::fs::read_to_string(ACCOUNTS).unwrap_or_default();
    let user = name_of(id, &accounts).map_or_else(|| format!("uid {id}"), str::to_owned);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let text = format!("{user}@{}", host.trim());
    text.chars().filter(|c| !c.is_control()).take(255).collect()
}

/// The name of a user id in a text of passwd(5)'s format.
fn name_of(id: u32, accounts: &str) -> Option<&str> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == id).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_accounts_and_not_a_lookalike() {
        let accounts = "# a comment\n\nroot:x:0:0:root:/root:/bin/sh\nshort:x\n\
            ann:x:1000:1000::/home/ann:/bin/sh\n:x:7:7::/:/bin/sh\n";
        assert_eq!(name_of(1000, accounts), Some("ann"));
        assert_eq!(name_of(0, accounts), Some("root"));
        assert_eq!(name_of(100, accounts), None);
        assert_eq!(name_of(7, accounts), None, "an account without a name");
    }

    #[test]
    fn the_record_names_a_user_and_a_host() {
        let (user, host) = actor()
            .split_once('@')
            .map(|(u, h)| (u.len(), h.len()))
            .unwrap();
        assert!(user > 0 && host > 0);
    }
}
