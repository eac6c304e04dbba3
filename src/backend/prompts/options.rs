//! `[[prompt]]` as it is written in the configuration, and what can be wrong with it.

use serde::{Deserialize, Serialize};

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
    /// `[[prompt.argument]]`: what is filled in. Default: nothing.
    #[serde(default, rename = "argument", skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<ArgumentOptions>,
    /// `[[prompt.message]]`: the messages, at least one.
    #[serde(rename = "message")]
    pub messages: Vec<MessageOptions>,
}

/// `[[prompt.argument]]`.
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

/// `[[prompt.message]]`.
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
