//! Rule files, as Prometheus reads them.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::tree::{Memo, Tree, yaml};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    #[expect(dead_code, reason = "for people")]
    pub name: String,
    #[expect(dead_code, reason = "promtool checks it")]
    pub interval: Option<String>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub record: Option<String>,
    pub alert: Option<String>,
    pub expr: String,
    pub r#for: Option<String>,
    pub keep_firing_for: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl Rule {
    /// Its name, whatever it is.
    pub fn name(&self) -> &str {
        self.alert.as_deref().or(self.record.as_deref()).unwrap_or_default()
    }
}

/// Every rule with the file it stands in, or what is wrong with the files.
pub fn all(tree: &Tree) -> Result<Vec<(String, Rule)>, Vec<String>> {
    thread_local! {
        static READ: Memo<Result<File, String>> = const { Memo::new() };
    }
    let (mut rules, mut complaints) = (Vec::new(), Vec::new());
    for (path, text) in tree.shared("prometheus/rules/", ".yml") {
        match &*READ.with(|read| read.of(path, text, || yaml::<File>(path, text))) {
            Ok(file) => {
                rules.extend(
                    file.groups.iter().flat_map(|group| &group.rules).map(|rule| (path.to_owned(), rule.clone())),
                );
            }
            Err(error) => complaints.push(error.clone()),
        }
    }
    if complaints.is_empty() { Ok(rules) } else { Err(complaints) }
}

/// The alerts among them, in the order of files.
pub fn alerts(tree: &Tree) -> Vec<(String, Rule)> {
    all(tree).unwrap_or_default().into_iter().filter(|(_, rule)| rule.alert.is_some()).collect()
}
