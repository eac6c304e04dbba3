//! The `prompts` provider: named templates from the configuration.
//!
//! `{{argument}}` stands for an argument's value, `\{{` for two literal braces. A value is put in
//! as it is and never looked at again: what a caller writes cannot become a placeholder.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::offer::{Completion, Prompt, PromptArgument};
use super::provider::{Answer, CompletionTarget, Context, Provider};
use super::result::{Content, Failure, PromptResult};

/// The provider's name.
pub const NAME: &str = "prompts";

/// `[[prompt]]`: a template that a client can ask for. Several may be given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptOptions {
    /// What clients ask for, `prompts__<name>` on the wire. 1 to 64 of `A-Z a-z 0-9 _ - .`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.-]{1,64}$"))]
    pub name: String,
    /// A title for people. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it is good for. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What is filled in. Default: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<ArgumentOptions>,
    /// The messages, at least one.
    pub messages: Vec<MessageOptions>,
}

/// `[[prompt.arguments]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArgumentOptions {
    /// What stands between the braces.
    pub name: String,
    /// A title for people. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it is. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it must be given. Default `false`.
    #[serde(default)]
    pub required: bool,
    /// What its value must be. Default `string`. On the wire it is a string in any case.
    #[serde(default, rename = "type")]
    pub kind: ArgumentType,
    /// The values of an `enum`; for nothing else. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// What is put in when it is not given; only for one that is not required. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// What the value of an argument must be.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ArgumentType {
    /// Any text.
    #[default]
    String,
    /// A whole number in decimal digits, 64 bits with sign.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// One of `values`.
    Enum,
}

/// `[[prompt.messages]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MessageOptions {
    /// Who says it. Default `user`.
    #[serde(default)]
    pub role: Role,
    /// The text with its placeholders.
    pub text: String,
}

/// Who says a message.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The user.
    #[default]
    User,
    /// The model.
    Assistant,
}

/// A prompt that makes no sense as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// The name.
    #[error("`{0}` is no name for a prompt: 1 to 64 of `A-Z a-z 0-9 _ - .`")]
    Name(String),
    /// Two of a name.
    #[error("two prompts are called `{0}`")]
    Twice(String),
    /// Nothing to say.
    #[error("prompt `{0}` has no messages")]
    Silent(String),
    /// The same argument again, or one without a name.
    #[error("prompt `{prompt}`: the argument `{argument}` is there twice, or has no name")]
    Argument {
        /// The prompt.
        prompt: String,
        /// The argument.
        argument: String,
    },
    /// An `enum` without values, or values without an `enum`.
    #[error("prompt `{prompt}`: `values` of `{argument}` go with the type `enum`, at least one")]
    Values {
        /// The prompt.
        prompt: String,
        /// The argument.
        argument: String,
    },
    /// A default that is not of the type, or of a required argument.
    #[error("prompt `{prompt}`: the default of `{argument}` {why}")]
    Default {
        /// The prompt.
        prompt: String,
        /// The argument.
        argument: String,
        /// What is wrong with it.
        why: String,
    },
    /// A placeholder without an argument.
    #[error("prompt `{prompt}`: `{{{{{placeholder}}}}}` is not one of its arguments")]
    Unknown {
        /// The prompt.
        prompt: String,
        /// What is between the braces.
        placeholder: String,
    },
    /// An argument without a placeholder.
    #[error("prompt `{prompt}`: no message uses the argument `{argument}`")]
    Unused {
        /// The prompt.
        prompt: String,
        /// The argument.
        argument: String,
    },
    /// `{{` without `}}`.
    #[error("prompt `{0}`: a placeholder is not closed; `\\{{{{` writes two braces")]
    Open(String),
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Argument(usize),
}

struct Template {
    options: PromptOptions,
    messages: Vec<(&'static str, Vec<Piece>)>,
}

/// The prompts of the configuration.
pub struct PromptsProvider {
    templates: Vec<Template>,
}

impl PromptsProvider {
    /// Checks and takes the templates.
    ///
    /// # Errors
    /// Every mistake in any of them.
    pub fn new(prompts: Vec<PromptOptions>) -> Result<Self, Vec<PromptError>> {
        let mut errors = Vec::new();
        let mut names = BTreeSet::new();
        let mut templates = Vec::with_capacity(prompts.len());
        for options in prompts {
            if !names.insert(options.name.clone()) {
                errors.push(PromptError::Twice(options.name.clone()));
            }
            check(&options, &mut errors);
            let messages = compile(&options, &mut errors);
            templates.push(Template { options, messages });
        }
        if errors.is_empty() {
            Ok(Self { templates })
        } else {
            Err(errors)
        }
    }

    fn find(&self, name: &str) -> Option<&Template> {
        self.templates
            .iter()
            .find(|template| template.options.name == name)
    }
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
    fn listed(&self) -> Prompt {
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
        }
    }

    fn fill(&self, given: &[(String, String)]) -> Result<PromptResult, Failure> {
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

    fn complete(&self, argument: &str, value: &str) -> Completion {
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

impl Provider for PromptsProvider {
    fn prompts(&self) -> Vec<Prompt> {
        self.templates.iter().map(Template::listed).collect()
    }

    fn get_prompt(
        &self,
        _context: Context,
        name: &str,
        arguments: Vec<(String, String)>,
    ) -> Answer<PromptResult> {
        let Some(template) = self.find(name) else {
            return Answer::Now(Err(Failure::NotFound));
        };
        Answer::Now(template.fill(&arguments))
    }

    fn complete(
        &self,
        _context: Context,
        target: CompletionTarget,
        argument: &str,
        value: &str,
        _given: Vec<(String, String)>,
    ) -> Answer<Completion> {
        let CompletionTarget::Prompt(name) = target else {
            return Answer::Now(Ok(Completion::default()));
        };
        let found = self
            .find(&name)
            .map(|template| template.complete(argument, value));
        Answer::Now(Ok(found.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(name: &str, kind: ArgumentType) -> ArgumentOptions {
        let values = if kind == ArgumentType::Enum {
            vec!["Red".into(), "blue".into()]
        } else {
            vec![]
        };
        ArgumentOptions {
            name: name.into(),
            title: None,
            description: None,
            required: name == "who",
            kind,
            values,
            default: None,
        }
    }

    fn prompt(arguments: Vec<ArgumentOptions>, text: &str) -> PromptOptions {
        PromptOptions {
            name: "greet".into(),
            title: None,
            description: Some("greets".into()),
            arguments,
            messages: vec![MessageOptions {
                role: Role::User,
                text: text.into(),
            }],
        }
    }

    fn greeting() -> PromptOptions {
        let mut times = argument("times", ArgumentType::Integer);
        times.default = Some("1".into());
        let arguments = vec![
            argument("who", ArgumentType::String),
            times,
            argument("loud", ArgumentType::Boolean),
            argument("colour", ArgumentType::Enum),
        ];
        prompt(
            arguments,
            r"Greet {{who}} {{ times }}x, loud={{loud}}, \{{x}} {{colour}}.",
        )
    }

    fn fill(given: &[(&str, &str)]) -> Result<String, String> {
        let provider = PromptsProvider::new(vec![greeting()]).unwrap();
        let given: Vec<_> = given
            .iter()
            .map(|(n, v)| ((*n).into(), (*v).into()))
            .collect();
        match provider.find("greet").unwrap().fill(&given) {
            Ok(result) => match &result.messages[0] {
                ("user", Content::Text(text)) => Ok(text.clone()),
                other => panic!("{other:?}"),
            },
            Err(Failure::InvalidParams(why)) => Err(why),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn arguments_are_put_in_as_they_are() {
        assert_eq!(
            fill(&[("who", "Ann")]).unwrap(),
            "Greet Ann 1x, loud=, {{x}} ."
        );
        assert_eq!(
            fill(&[
                ("who", "{{times}}"),
                ("times", "-3"),
                ("loud", "true"),
                ("colour", "Red")
            ]),
            Ok("Greet {{times}} -3x, loud=true, {{x}} Red.".into())
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert!(fill(&[]).unwrap_err().contains("`who` is required"));
        assert!(
            fill(&[("who", "a"), ("times", "2.5")])
                .unwrap_err()
                .contains("`times` must be")
        );
        assert!(
            fill(&[("who", "a"), ("loud", "yes")])
                .unwrap_err()
                .contains("`loud` must be")
        );
        let error = fill(&[("who", "a"), ("colour", "red")]).unwrap_err();
        assert!(
            error.contains("`colour` must be one of: Red, blue"),
            "{error}"
        );
        assert!(
            fill(&[("who", "a"), ("whom", "b")])
                .unwrap_err()
                .contains("`whom` is not")
        );
    }

    #[test]
    fn values_complete() {
        let provider = PromptsProvider::new(vec![greeting()]).unwrap();
        let template = provider.find("greet").unwrap();
        assert_eq!(template.complete("colour", "r").values, ["Red"]);
        assert_eq!(template.complete("colour", "").values, ["Red", "blue"]);
        assert_eq!(template.complete("loud", "t").values, ["true"]);
        assert_eq!(template.complete("who", "a").values, [""; 0]);
        assert_eq!(template.complete("none", "a").values, [""; 0]);
    }

    #[test]
    fn every_mistake_of_the_configuration_is_found() {
        assert!(PromptsProvider::new(vec![greeting()]).is_ok());
        let errors = |prompts: Vec<PromptOptions>| {
            let found = PromptsProvider::new(prompts).err().unwrap();
            found
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        };
        let who = || argument("who", ArgumentType::String);
        assert!(errors(vec![greeting(), greeting()]).contains("two prompts are called `greet`"));
        assert!(errors(vec![prompt(vec![], "{{who}}")]).contains("`{{who}}` is not one"));
        assert!(errors(vec![prompt(vec![who()], "hi")]).contains("no message uses"));
        assert!(errors(vec![prompt(vec![who()], "{{who")]).contains("not closed"));
        assert!(errors(vec![prompt(vec![who(), who()], "{{who}}")]).contains("twice"));
        let mut values = who();
        values.values = vec!["a".into()];
        assert!(errors(vec![prompt(vec![values], "{{who}}")]).contains("type `enum`"));
        let mut default = argument("n", ArgumentType::Integer);
        default.default = Some("x".into());
        assert!(errors(vec![prompt(vec![default], "{{n}}")]).contains("must be a whole number"));
        let mut default = who();
        default.default = Some("x".into());
        assert!(errors(vec![prompt(vec![default], "{{who}}")]).contains("is of no use"));
        let mut several = prompt(vec![], "{{a}}");
        several.name = "no good".into();
        let both = errors(vec![several]);
        assert!(
            both.contains("no name for a prompt") && both.contains("`{{a}}`"),
            "{both}"
        );
        let mut silent = prompt(vec![], "");
        silent.messages.clear();
        assert!(errors(vec![silent]).contains("no messages"));
    }
}
