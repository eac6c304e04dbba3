//! The provider itself.

use std::collections::BTreeSet;

use super::super::{
    Answer, Completion, CompletionTarget, Context, Failure, Prompt, PromptResult, Provider,
};
use super::options::{PromptError, PromptOptions};
use super::template::Template;

/// The provider's name.
pub const NAME: &str = "prompts";

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
            templates.push(Template::new(options, &mut errors));
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
            .find(|template| template.name() == name)
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
    use super::super::super::Content;
    use super::super::options::{ArgumentOptions, ArgumentType, MessageOptions, Role};
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
    fn options_are_read_as_they_are_written_and_every_key_is_documented() {
        let text = r#"{"name":"greet","argument":[{"name":"who","required":true}],
            "message":[{"text":"{{who}}"},{"role":"assistant","text":"yes"}]}"#;
        let options: PromptOptions = serde_json::from_str(text).unwrap();
        assert_eq!(options.messages[1].role, Role::Assistant);
        assert_eq!(options.arguments[0].kind, ArgumentType::String);
        assert!(PromptsProvider::new(vec![options]).is_ok());
        assert!(serde_json::from_str::<PromptOptions>(r#"{"name":"a","text":"b"}"#).is_err());
        let schema = schemars::schema_for!(PromptOptions);
        let properties = schema.get("properties").unwrap().as_object().unwrap();
        assert!(
            properties.values().all(|p| p.get("description").is_some()),
            "{schema:?}"
        );
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
