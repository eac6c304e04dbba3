//! What a handler answers, in the words of a provider.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rmcp::model::{
    CallToolResponse, CompleteResult, ErrorCode, ErrorData, GetPromptResponse, InputRequiredResult,
    ReadResourceResponse, ResourceContents, Role,
};
use serde_json::Value;

use crate::backend::offer::Completion;
use crate::backend::result::{Body, Content, Failure, PromptResult, ReadResult, ToolResult};
use crate::jsonrpc::RpcError;

/// A completion has at most so many values.
const VALUES: usize = 100;

/// The failure that an error of the handler stands for. What is internal stays here.
pub fn failure(error: ErrorData) -> Failure {
    match error.code {
        ErrorCode::METHOD_NOT_FOUND | ErrorCode::RESOURCE_NOT_FOUND => Failure::NotFound,
        ErrorCode::INTERNAL_ERROR => Failure::Internal(error.message.into_owned()),
        code => Failure::Error(RpcError {
            code: i64::from(code.0),
            message: error.message.into_owned(),
            data: error.data.map(|data| data.to_string()),
        }),
    }
}

fn broken(why: impl std::fmt::Display) -> Failure {
    Failure::Internal(format!("an rmcp handler's answer: {why}"))
}

fn question(result: InputRequiredResult) -> Failure {
    let requests = result.input_requests.unwrap_or_default().into_iter();
    let mut written = Vec::new();
    for (key, request) in requests {
        match serde_json::to_string(&request) {
            Ok(request) => written.push((key, request)),
            Err(error) => return broken(error),
        }
    }
    Failure::InputRequired {
        requests: written,
        state: result.request_state,
    }
}

/// `tools/call`.
pub fn tool(response: CallToolResponse) -> Result<ToolResult, Failure> {
    let result = match response {
        CallToolResponse::Complete(result) => result,
        CallToolResponse::InputRequired(result) => return Err(question(result)),
        _ => return Err(broken("tasks are not carried")),
    };
    let content = serde_json::to_string(&result.content).map_err(broken)?;
    let mut members = String::new();
    if result.is_error == Some(true) {
        members.push_str("\"isError\":true,");
    }
    members.push_str("\"content\":");
    members.push_str(&content);
    if let Some(structured) = result.structured_content {
        members.push_str(",\"structuredContent\":");
        members.push_str(&structured.to_string());
    }
    Ok(ToolResult::Encoded(members.into()))
}

/// `resources/read`.
pub fn read(response: ReadResourceResponse) -> Result<ReadResult, Failure> {
    let result = match response {
        ReadResourceResponse::Complete(result) => result,
        ReadResourceResponse::InputRequired(result) => return Err(question(result)),
        _ => return Err(broken("a kind that is not carried")),
    };
    if result.contents.is_empty() {
        return Err(Failure::NotFound);
    }
    let contents = result.contents.into_iter().map(|content| match content {
        ResourceContents::TextResourceContents {
            uri,
            mime_type,
            text,
            ..
        } => Ok((uri, mime_type, Body::Text(text))),
        ResourceContents::BlobResourceContents {
            uri,
            mime_type,
            blob,
            ..
        } => {
            let bytes = STANDARD.decode(blob).map_err(broken)?;
            Ok((uri, mime_type, Body::Blob(bytes.into())))
        }
        _ => Err(broken("a kind that is not carried")),
    });
    let contents = contents.collect::<Result<_, _>>()?;
    Ok(ReadResult { contents })
}

/// `prompts/get`.
pub fn prompt(response: GetPromptResponse) -> Result<PromptResult, Failure> {
    let result = match response {
        GetPromptResponse::Complete(result) => result,
        GetPromptResponse::InputRequired(result) => return Err(question(result)),
        _ => return Err(broken("a kind that is not carried")),
    };
    let messages = result.messages.into_iter().map(|message| {
        let role = match message.role {
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        let block = serde_json::to_vec(&message.content).map_err(broken)?;
        Ok((role, Content::Raw(Bytes::from(block))))
    });
    Ok(PromptResult {
        description: result.description,
        messages: messages.collect::<Result<_, Failure>>()?,
    })
}

/// `completion/complete`.
pub fn completion(result: CompleteResult) -> Completion {
    let found = result.completion;
    let more = found.values.len() > VALUES;
    let mut values = found.values;
    values.truncate(VALUES);
    Completion {
        values,
        total: found.total.map(u64::from),
        has_more: more || found.has_more == Some(true),
    }
}

/// The client's answers, by key.
pub fn answers<T: serde::de::DeserializeOwned>(raw: Option<&Bytes>) -> Option<T> {
    let value: Value = serde_json::from_slice(raw?).ok()?;
    serde_json::from_value(value).ok()
}
