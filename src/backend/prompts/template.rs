//! A template, checked and taken apart, and how it is filled in.

use std::collections::BTreeSet;

use super::super::{Completion, Content, Failure, Prompt, PromptArgument, PromptResult};
use super::options::{ArgumentOptions, ArgumentType, PromptError, PromptOptions, Role};

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Argument(usize),
}

/// A prompt that can be filled in.
pub struct Template {
    options: PromptOptions,
    messages: Vec<(&'static str, Vec<Piece>)>,
}

fn check(prompt: &PromptOptions, errors: &mut Vec<PromptError>) {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    let name = &prompt.name;
    if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
        errors.push(PromptError::Name(name.clone()));
    }
    if prompt.messages.is_empty() {
        errors.push(PromptError::Silent(name.clone()));
    }
    let mut names = BTreeSet::new();
    for argument in &prompt.arguments {
        let (prompt, of) = (name.clone(), argument.name.clone());
        if of.trim().is_empty() || !names.insert(&argument.name) {
            errors.push(PromptError::Argument {
                prompt,
                argument: of,
            });
            continue;
        }
        if (argument.kind == ArgumentType::Enum) == argument.values.is_empty() {
            errors.push(PromptError::Values {
                prompt: prompt.clone(),
                argument: of.clone(),
            });
        }
        let Some(default) = &argument.default else {
            continue;
        };
        let wrong = if argument.required {
            Some("is of no use: the argument is required".to_owned())
        } else {
            argument.refuses(default)
        };
        if let Some(why) = wrong {
            errors.push(PromptError::Default {
                prompt,
                argument: of,
                why,
            });
        }
    }
}

fn compile(
    prompt: &PromptOptions,
    errors: &mut Vec<PromptError>,
) -> Vec<(&'static str, Vec<Piece>)> {
    let mut used = vec![false; prompt.arguments.len()];
    let mut messages = Vec::with_capacity(prompt.messages.len());
    for message in &prompt.messages {
        match pieces(prompt, &message.text) {
            Ok(pieces) => {
                for piece in &pieces {
                    if let Piece::Argument(index) = piece {
                        used[*index] = true;
                    }
                }
                messages.push((message.role.as_str(), pieces));
            }
            Err(error) => errors.push(error),
        }
    }
    for (argument, used) in prompt.arguments.iter().zip(used) {
        // With a message that could not be read nobody knows what it would have used.
        if !used && messages.len() == prompt.messages.len() {
            let (prompt, argument) = (prompt.name.clone(), argument.name.clone());
            errors.push(PromptError::Unused { prompt, argument });
        }
    }
    messages
}

fn pieces(prompt: &PromptOptions, text: &str) -> Result<Vec<Piece>, PromptError> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        if let Some(before) = rest[..at].strip_suffix('\\') {
            plain.push_str(before);
            plain.push_str("{{");
            rest = &rest[at + 2..];
            continue;
        }
        plain.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let end = inside
            .find("}}")
            .ok_or_else(|| PromptError::Open(prompt.name.clone()))?;
        let name = inside[..end].trim();
        let index = prompt
            .arguments
            .iter()
            .position(|argument| argument.name == name);
        let index = index.ok_or_else(|| PromptError::Unknown {
            prompt: prompt.name.clone(),
            placeholder: name.to_owned(),
        })?;
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Argument(index));
        rest = &inside[end + 2..];
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

impl Role {
    const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

impl ArgumentOptions {
    /// What is wrong with a value, as the end of a sentence.
    fn refuses(&self, value: &str) -> Option<String> {
        let why = match self.kind {
            ArgumentType::String => return None,
            ArgumentType::Integer if value.parse::<i64>().is_ok() => return None,
            ArgumentType::Boolean if matches!(value, "true" | "false") => return None,
            ArgumentType::Enum if self.values.iter().any(|known| known == value) => return None,
            ArgumentType::Integer => "must be a whole number".to_owned(),
            ArgumentType::Boolean => "must be `true` or `false`".to_owned(),
            ArgumentType::Enum => format!("must be one of: {}", self.values.join(", ")),
        };
        Some(why)
    }
}

impl Template {
    /// Takes a prompt apart; its mistakes go behind the others.
    pub fn new(options: PromptOptions, errors: &mut Vec<PromptError>) -> Self {
        check(&options, errors);
        let messages = compile(&options, errors);
        Self { options, messages }
    }

    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// As it stands in the list.
    pub fn listed(&self) -> Prompt {
        let arguments = self
            .options
            .arguments
            .iter()
            .map(|argument| PromptArgument {
                name: argument.name.clone(),
                title: argument.title.clone(),
                description: argument.description.clone(),
                required: argument.required,
            });
        Prompt {
            name: self.options.name.clone(),
            title: self.options.title.clone(),
            description: self.options.description.clone(),
            arguments: arguments.collect(),
            more: String::new(),
        }
    }

    /// The prompt with these values.
    pub fn fill(&self, given: &[(String, String)]) -> Result<PromptResult, Failure> {
        let refuse = |why: String| Err(Failure::InvalidParams(why));
        for (name, _) in given {
            if !self
                .options
                .arguments
                .iter()
                .any(|argument| argument.name == *name)
            {
                return refuse(format!("`{name}` is not an argument of this prompt"));
            }
        }
        let mut values = Vec::with_capacity(self.options.arguments.len());
        for argument in &self.options.arguments {
            let value = given
                .iter()
                .find(|(name, _)| *name == argument.name)
                .map(|(_, v)| v);
            match value {
                Some(value) => {
                    if let Some(why) = argument.refuses(value) {
                        return refuse(format!("`{}` {why}", argument.name));
                    }
                    values.push(value.as_str());
                }
                None if argument.required => {
                    return refuse(format!("`{}` is required and missing", argument.name));
                }
                None => values.push(argument.default.as_deref().unwrap_or_default()),
            }
        }
        let messages = self.messages.iter().map(|(role, pieces)| {
            let text: String = pieces.iter().map(|piece| piece.text(&values)).collect();
            (*role, Content::Text(text))
        });
        Ok(PromptResult {
            description: self.options.description.clone(),
            messages: messages.collect(),
        })
    }

    /// What the value of an argument could become.
    pub fn complete(&self, argument: &str, value: &str) -> Completion {
        let Some(argument) = self
            .options
            .arguments
            .iter()
            .find(|known| known.name == argument)
        else {
            return Completion::default();
        };
        let typed = value.to_lowercase();
        let booleans = ["true".to_owned(), "false".to_owned()];
        let values: &[String] = match argument.kind {
            ArgumentType::Enum => &argument.values,
            ArgumentType::Boolean => &booleans,
            ArgumentType::String | ArgumentType::Integer => &[],
        };
        let fits = values
            .iter()
            .filter(|known| known.to_lowercase().starts_with(&typed));
        Completion::of(fits.cloned().collect())
    }
}

impl Piece {
    fn text<'a>(&'a self, values: &[&'a str]) -> &'a str {
        match self {
            Self::Text(text) => text,
            Self::Argument(index) => values[*index],
        }
    }
}
