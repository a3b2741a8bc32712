//! Workloads: processes of hosts, known by their systemd unit or their user.

use super::{Selector, Source};
use crate::name::{Name, text_name};

/// What runs as a systemd unit or a user, on hosts where the policy places it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Unique among the workloads of its bundle.
    pub name: Name,
    /// Its unit. With a user too, both must match; without either it cannot be.
    pub unit: Option<UnitPattern>,
    /// Whom its processes belong to.
    pub user: Option<UserName>,
    /// The hosts that may run it, and vouch for it: `any`, hosts or labels; at least one.
    pub hosts: Vec<Selector>,
    /// Where it was written.
    pub source: Source,
}

text_name!(
    /// A systemd unit, or several: `*` stands for any characters, as in `orders@*.service`.
    UnitPattern, "systemd unit", check_unit, "^[A-Za-z0-9:_.@\\\\*-]+\\.(service|scope)$"
);
text_name!(
    /// A user of a host by name or, all digits, by number.
    UserName, "user", check_user, "^([a-z_][a-z0-9_.-]{0,31}|[0-9]{1,10})$"
);

/// systemd.unit(5): at most 255 characters.
const UNIT_BYTES_MAX: usize = 255;

/// Each `*` may be tried at each character of a name.
const STARS_MAX: usize = 4;

fn check_unit(text: &str) -> Result<(), &'static str> {
    if text.len() > UNIT_BYTES_MAX {
        return Err("it is longer than 255 characters");
    }
    let Some(name) = text
        .strip_suffix(".service")
        .or_else(|| text.strip_suffix(".scope"))
    else {
        return Err("it has to end in .service or .scope");
    };
    if name.is_empty() {
        return Err("there is nothing before its kind");
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":_.@\\-*".contains(&byte);
    if !name.bytes().all(fits) {
        return Err("only letters, digits and : - _ . \\ @ may stand in it, and * for any");
    }
    if name.bytes().filter(|byte| *byte == b'*').count() > STARS_MAX {
        return Err("it has more than four *");
    }
    if name.bytes().all(|byte| byte == b'*') {
        return Err("it means every unit: name the hosts instead");
    }
    Ok(())
}

fn check_user(text: &str) -> Result<(), &'static str> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<u32>() {
            Ok(_) if text == "0" || !text.starts_with('0') => Ok(()),
            Ok(_) => Err("a number does not begin with 0"),
            Err(_) => Err("the number is too large for a user"),
        };
    }
    let mut bytes = text.bytes();
    if !bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_')
    {
        return Err("it has to begin with a-z or _, or be a number");
    }
    if text.len() > 32 {
        return Err("it is longer than 32 characters");
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !bytes.all(fits) {
        return Err("only letters, digits and _ . - may stand in it");
    }
    Ok(())
}

impl UnitPattern {
    /// Returns whether a unit is meant: by its name, such as `orders@7.service`.
    pub fn matches(&self, unit: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut left) = unit.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return left.is_empty();
        };
        for part in parts {
            match left.find(part) {
                Some(at) => left = &left[at + part.len()..],
                None => return false,
            }
        }
        left.ends_with(last)
    }

    /// Returns how many characters are given: the more, the more is said.
    pub fn specificity(&self) -> usize {
        self.0.bytes().filter(|byte| *byte != b'*').count()
    }

    /// Returns whether it may mean several units.
    pub fn is_pattern(&self) -> bool {
        self.0.contains('*')
    }
}

impl UserName {
    /// Returns whether a user is meant.
    pub fn matches(&self, name: Option<&str>, uid: u32) -> bool {
        match self.0.parse::<u32>() {
            Ok(number) => number == uid,
            Err(_) => name == Some(self.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_have_a_kind_and_say_something() {
        for good in ["web.service", "orders@*.service", "run-r1\\x2d.scope"] {
            assert!(good.parse::<UnitPattern>().is_ok(), "{good}");
        }
        for bad in [
            "web",
            ".service",
            "*.service",
            "a/b.service",
            "w b.service",
            "a*a*a*a*a*.service",
            "user.slice",
        ] {
            assert!(bad.parse::<UnitPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        let matches = |pattern: &str, unit: &str| -> bool {
            pattern.parse::<UnitPattern>().unwrap().matches(unit)
        };
        assert!(matches("web.service", "web.service"));
        assert!(!matches("web.service", "web.service2"));
        assert!(!matches("web.service", "my-web.service"));
        assert!(matches("orders@*.service", "orders@7.service"));
        assert!(matches("orders@*.service", "orders@.service"));
        assert!(!matches("orders@*.service", "orders@7.scope"));
        assert!(matches("a*b*c.service", "a-bb-b-c.service"));
        assert!(!matches("a*c.service", "ac.service.service2"));
        assert!(!matches("a*a.service", "a.service"));
    }

    #[test]
    fn users_are_names_or_numbers() {
        let user = |text: &str| text.parse::<UserName>();
        assert!(user("www-data").unwrap().matches(Some("www-data"), 33));
        assert!(!user("www-data").unwrap().matches(None, 33));
        assert!(user("33").unwrap().matches(Some("www-data"), 33));
        assert!(!user("33").unwrap().matches(Some("33"), 34));
        for bad in ["", "Root", "-x", "007", "4294967296", "a b"] {
            assert!(user(bad).is_err(), "{bad}");
        }
    }
}
