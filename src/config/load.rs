//! From the file and the environment to a checked configuration, or to every mistake.

use std::path::{Path, PathBuf};

use super::document::{self, Places};
use super::mistake::{Mistake, Problem};
use super::overrides::{self, Applied};
use super::resolve::resolve;
use super::resolved::Config;
use super::schema::schema;
use super::shape;
use super::written::Written;

impl Config {
    /// Reads, checks and resolves `path`; `environment` are the variables that may override keys.
    ///
    /// # Errors
    /// Every mistake that can be told: all of the shape, or, once the shape is right, all of the
    /// meaning. A text that is no TOML ends at its first mistake.
    pub fn load(
        path: &Path,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Vec<Mistake>> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            vec![Mistake {
                path: path.to_owned(),
                variable: None,
                line: 0,
                column: 0,
                key: String::new(),
                message: format!("cannot be read: {error}"),
                hint: (error.kind() == std::io::ErrorKind::NotFound).then(|| {
                    String::from(
                        "`countersign up` makes one, and `countersign config example` prints one",
                    )
                }),
            }]
        })?;
        Self::parse(&text, path, environment)
    }

    /// As [`Self::load`], of a text that is at hand; `path` says what it is called and from where
    /// relative paths count.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(
        text: &str,
        path: &Path,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Vec<Mistake>> {
        let parsed = document::parse(text).map_err(|syntax| {
            vec![Mistake {
                path: path.to_owned(),
                variable: None,
                line: syntax.line,
                column: syntax.column,
                key: String::new(),
                message: syntax.message,
                hint: None,
            }]
        })?;
        let mut value = parsed.value;
        let schema = schema();
        let applied = overrides::apply(&mut value, &schema, environment);
        let finder = Finder {
            path: path.to_owned(),
            places: parsed.places,
            applied,
        };
        let mut problems = shape::check(&value, &schema);
        if !problems.is_empty() || !finder.applied.problems.is_empty() {
            return Err(finder.mistakes(problems));
        }
        match serde_json::from_value::<Written>(value) {
            Ok(written) => resolve(&written, path).map_err(|problems| finder.mistakes(problems)),
            Err(error) => {
                problems.push(Problem::at("", format!("cannot be taken in: {error}")));
                Err(finder.mistakes(problems))
            }
        }
    }
}

/// Puts problems to their places.
struct Finder {
    path: PathBuf,
    places: Places,
    applied: Applied,
}

impl Finder {
    /// In the order of the file; what is wrong in the environment comes first.
    fn mistakes(&self, problems: Vec<Problem>) -> Vec<Mistake> {
        let of_variables = self.applied.problems.iter();
        let mut mistakes: Vec<Mistake> = of_variables
            .map(|(variable, problem)| self.mistake(problem.clone(), Some(variable.clone())))
            .collect();
        mistakes.extend(problems.into_iter().map(|problem| {
            let variable = self.variable(&problem.pointer);
            self.mistake(problem, variable)
        }));
        mistakes.sort_by(|a, b| (a.line, a.column, &a.key).cmp(&(b.line, b.column, &b.key)));
        mistakes.dedup();
        mistakes
    }

    fn mistake(&self, problem: Problem, variable: Option<String>) -> Mistake {
        let (line, column) = match variable {
            Some(_) => (0, 0),
            None => self.places.find(&problem.pointer, problem.on_key),
        };
        let key = problem.key();
        let Problem { message, hint, .. } = problem;
        Mistake {
            path: self.path.clone(),
            variable,
            line,
            column,
            key,
            message,
            hint,
        }
    }

    /// The variable that gave the value at this place or the list around it.
    fn variable(&self, pointer: &str) -> Option<String> {
        let mut pointer = pointer;
        loop {
            if let Some(variable) = self.applied.variables.get(pointer) {
                return Some(variable.clone());
            }
            pointer = &pointer[..pointer.rfind('/')?];
        }
    }
}
