//! The `prompts` provider: named templates from the configuration.
//!
//! `{{argument}}` stands for an argument's value, `\{{` for two literal braces. A value is put in
//! as it is and never looked at again: what a caller writes cannot become a placeholder.

mod options;
mod provider;
mod template;

pub use options::{
    ArgumentOptions, ArgumentType, MessageOptions, PromptError, PromptOptions, Role,
};
pub use provider::{NAME, PromptsProvider};
