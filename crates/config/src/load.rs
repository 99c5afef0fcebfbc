//! Flags before variables before the file before defaults, and where each value came from.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::OTHER_VARIABLES;
use crate::file;
use crate::nearest::nearest;
use crate::problem::{Origin, Problem, Problems};
use crate::settings::{Config, Setting, sections, setting};
use crate::validate::validate;
use crate::value::Raw;

/// A kiln.toml that has been read.
#[derive(Debug, Clone)]
pub struct TomlFile {
    /// Its path, as messages name it.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

impl TomlFile {
    /// Reads `path`.
    pub fn read(path: &Path) -> io::Result<Self> {
        std::fs::read_to_string(path).map(|text| Self { path: path.to_owned(), text })
    }
}

/// Where settings come from. Each is an argument, so that a test needs neither files nor the process environment.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// kiln.toml, if there is one.
    pub file: Option<TomlFile>,
    /// Environment variables; those without the `KILN_` prefix are passed over.
    pub env: Vec<(String, String)>,
    /// Keys and values from the command line: `("kafka.listen", "127.0.0.1:0")`.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// Adds this process's environment.
    #[must_use]
    pub fn with_process_env(mut self) -> Self {
        let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        self.env.extend(std::env::vars_os().filter_map(utf8).filter(|(name, _)| name.starts_with("KILN_")));
        self
    }
}

/// Settings that hold together, and what each came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Things worth saying that are no mistakes: a `KILN_*` variable that resembles a known one.
    pub notes: Vec<String>,
    pub(crate) origins: Origins,
}

impl Loaded {
    /// Each setting in force, with its origin, in the order of the shipped file.
    pub fn effective(&self) -> Vec<Effective> {
        let settings = sections().iter().flat_map(|section| section.settings);
        settings
            .map(|setting| Effective {
                key: setting.key(),
                value: setting.show(&self.config),
                origin: self.origins.of(&setting.key()),
            })
            .collect()
    }
}

/// One line of `kiln config show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// `kafka.listen`
    pub key: String,
    /// As kiln.toml would have it.
    pub value: String,
    /// Who said so.
    pub origin: Origin,
}

/// Who set which key. A key that nobody set has the origin of the table it would stand in, or none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins(BTreeMap<String, Origin>);

impl Origins {
    pub(crate) fn set(&mut self, key: &str, origin: Origin) {
        self.0.insert(key.to_owned(), origin);
    }

    pub(crate) fn of(&self, key: &str) -> Origin {
        let mut key = key;
        loop {
            if let Some(origin) = self.0.get(key) {
                return origin.clone();
            }
            match key.rfind('.') {
                Some(dot) => key = &key[..dot],
                None => return Origin::Default,
            }
        }
    }
}

/// Settings from all sources, or every problem in them.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut loading = Loading::default();
    if let Some(file) = &sources.file {
        file::read(file, &mut loading.config, &mut loading.origins, &mut loading.problems);
    }
    loading.variables(&sources.env);
    loading.flags(&sources.flags);
    loading.finish()
}

/// Settings from the text of one file alone: what `kiln config check FILE` looks at.
pub fn parse(path: &Path, text: &str) -> Result<Loaded, Problems> {
    let file = TomlFile { path: path.to_owned(), text: text.to_owned() };
    load(&Sources { file: Some(file), ..Sources::default() })
}

/// What is known while the sources are read one after another.
#[derive(Default)]
struct Loading {
    config: Config,
    origins: Origins,
    notes: Vec<String>,
    problems: Vec<Problem>,
}

impl Loading {
    fn variables(&mut self, env: &[(String, String)]) {
        for (name, value) in env {
            match by_variable(name) {
                Some(setting) => self.assign(setting, value, Origin::Env(name.clone())),
                None => self.notes.extend(unknown_variable(name)),
            }
        }
    }

    fn flags(&mut self, flags: &[(String, String)]) {
        for (key, value) in flags {
            match setting(key) {
                Some(setting) => self.assign(setting, value, Origin::Flag(setting.flag())),
                None => self.problems.push(unknown_flag(key, value)),
            }
        }
    }

    fn assign(&mut self, setting: &Setting, value: &str, origin: Origin) {
        match (setting.set)(&mut self.config, &Raw::Word(value)) {
            Ok(()) => self.origins.set(&setting.key(), origin),
            Err(reason) => self.problems.push(Problem {
                remedy: format!("unset it, or set it to something like {}", setting.show(&Config::default())),
                origin,
                key: setting.key(),
                value: Some(value.to_owned()),
                reason,
            }),
        }
    }

    fn finish(mut self) -> Result<Loaded, Problems> {
        self.problems.extend(validate(&self.config, &self.origins));
        if self.problems.is_empty() {
            return Ok(Loaded { config: self.config, notes: self.notes, origins: self.origins });
        }
        self.problems.sort_by_key(|problem| problem.origin.place_in_file());
        Err(Problems(self.problems))
    }
}

fn by_variable(name: &str) -> Option<&'static Setting> {
    sections().iter().flat_map(|section| section.settings).find(|setting| setting.env() == name)
}

/// Variables of other programs may share the prefix, so that only a near miss is worth a word.
fn unknown_variable(name: &str) -> Option<String> {
    if !name.starts_with("KILN_") || OTHER_VARIABLES.iter().any(|(known, _)| *known == name) {
        return None;
    }
    let known: Vec<_> = sections().iter().flat_map(|section| section.settings).map(Setting::env).collect();
    let right = nearest(name, known.iter().map(String::as_str))
        .filter(|known| strsim::damerau_levenshtein(known, name) <= 2)?;
    Some(format!("{name} is no setting; did you mean {right}?"))
}

fn unknown_flag(key: &str, value: &str) -> Problem {
    let known: Vec<_> = sections().iter().flat_map(|section| section.settings).map(Setting::key).collect();
    let nearest = nearest(key, known.iter().map(String::as_str));
    Problem {
        origin: Origin::Flag(key.replace(['.', '_'], "-")),
        key: key.to_owned(),
        value: Some(value.to_owned()),
        reason: "unknown key".to_owned(),
        remedy: nearest.map_or_else(
            || "`kiln config default` lists all keys".to_owned(),
            |known| format!("did you mean `{known}`?"),
        ),
    }
}

#[cfg(test)]
mod tests;
