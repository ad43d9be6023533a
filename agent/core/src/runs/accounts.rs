//! Accounts of a host, read from the text of its databases.

/// One account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its first group.
    pub gid: u32,
    /// Its home folder.
    pub home: String,
    /// Its shell.
    pub shell: String,
}

impl Account {
    /// An account from a line of `passwd(5)`.
    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line.trim_end().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (fields.nth(1)?, fields.next()?);
        let (home, shell) = (fields.nth(1)?, fields.next().unwrap_or(""));
        let or = |text: &str, other: &str| if text.is_empty() { other } else { text }.to_owned();
        Some(Self {
            name: name.to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: or(home, "/"),
            shell: or(shell, "/bin/sh"),
        })
    }

    /// The account of this name in the text of a `passwd(5)`.
    pub fn named(name: &str, passwd: &str) -> Option<Self> {
        passwd
            .lines()
            .filter_map(Self::parse)
            .find(|it| it.name == name)
    }

    /// The account of this user id.
    pub fn of_uid(uid: u32, passwd: &str) -> Option<Self> {
        passwd
            .lines()
            .filter_map(Self::parse)
            .find(|it| it.uid == uid)
    }

    /// Its groups: the first one, and those in the text of a `group(5)` that name it.
    pub fn groups(&self, group: &str) -> Vec<u32> {
        let mut groups = vec![self.gid];
        for line in group.lines() {
            let mut fields = line.split(':');
            let gid = fields.nth(2).and_then(|gid| gid.parse::<u32>().ok());
            let members = fields.next().unwrap_or("");
            if let Some(gid) = gid
                && members.split(',').any(|member| member.trim() == self.name)
                && !groups.contains(&gid)
            {
                groups.push(gid);
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n# a comment\nbroken\n\
                          web:x:1001:1002:Web,,,:/srv/web:\nnohome:x:7:7::: \n";

    #[test]
    fn accounts_are_found_by_name_and_by_id() {
        let web = Account::named("web", PASSWD).unwrap();
        assert_eq!(
            (web.uid, web.gid, web.home.as_str()),
            (1001, 1002, "/srv/web")
        );
        assert_eq!(web.shell, "/bin/sh");
        assert_eq!(Account::of_uid(0, PASSWD).unwrap().name, "root");
        assert_eq!(Account::named("nohome", PASSWD).unwrap().home, "/");
        assert_eq!(Account::named("broken", PASSWD), None);
        assert_eq!(Account::named("", PASSWD), None);
    }

    #[test]
    fn groups_are_the_first_and_those_that_name_the_account() {
        let web = Account::named("web", PASSWD).unwrap();
        let group = "root:x:0:\nadm:x:4:web,root\nweb:x:1002:web\nwebs:x:9:webs\nbad:x:y:web\n";
        assert_eq!(web.groups(group), [1002, 4]);
    }
}
