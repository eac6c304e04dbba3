//! The snippet that makes an MCP client start the bridge.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Value, json};

use super::exit::Failure;
use super::reach::ReachArgs;
use crate::cert::KeyUri;
use crate::client::Transport;

/// Whose configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum For {
    /// Claude Desktop's `claude_desktop_config.json` and Claude Code's `.mcp.json`
    Claude,
    /// `.vscode/mcp.json`
    Vscode,
    /// `.cursor/mcp.json`
    Cursor,
    /// Command and arguments, for any other client
    Generic,
}

/// The snippet for this program and these arguments, all paths absolute: a client starts the bridge
/// from a folder of its own.
///
/// # Errors
/// The path of this program or of the working folder cannot be found, or the credentials are not there.
pub fn snippet(whose: For, reach: &ReachArgs) -> Result<Value, Failure> {
    let program = std::env::current_exe().map_err(|cause| {
        Failure::setup(format!("cannot find the path of this program: {cause}"))
    })?;
    // The credentials are looked up now, so that a snippet which cannot work is not handed out.
    let credentials = reach.files()?;
    let mut args = vec![
        "connect".to_owned(),
        "--server".to_owned(),
        reach.server.address(),
    ];
    if reach.transport != Transport::default() {
        args.extend(["--transport".to_owned(), reach.transport.to_string()]);
    }
    let mut path = |flag: &str, path: &Path| -> Result<(), Failure> {
        args.extend([flag.to_owned(), absolute(path)?]);
        Ok(())
    };
    match &credentials.name {
        Some(name) => {
            let folder = credentials
                .cert
                .parent()
                .map(Path::to_owned)
                .unwrap_or_default();
            path("--pki", &folder)?;
            if credentials.ca != folder.join("ca.pem") {
                path("--ca", &credentials.ca)?;
            }
            args.extend(["--as".to_owned(), name.clone()]);
        }
        None => {
            args.extend(["--cert".to_owned(), absolute(&credentials.cert)?]);
            if KeyUri::is_one(&credentials.key) {
                let uri = credentials.key.to_string_lossy().into_owned();
                args.extend(["--key".to_owned(), uri]);
            } else {
                args.extend(["--key".to_owned(), absolute(&credentials.key)?]);
            }
            args.extend(["--ca".to_owned(), absolute(&credentials.ca)?]);
        }
    }
    if let Some(file) = &reach.key_passphrase_file {
        args.extend(["--key-passphrase-file".to_owned(), absolute(file)?]);
    }
    Ok(wrap(whose, &program, &args))
}

fn wrap(whose: For, program: &Path, args: &[String]) -> Value {
    let server = json!({ "command": program.to_string_lossy(), "args": args });
    match whose {
        For::Claude | For::Cursor => json!({ "mcpServers": { "countersign": server } }),
        For::Vscode => json!({
            "servers": { "countersign": { "type": "stdio", "command": server["command"], "args": args } }
        }),
        For::Generic => server,
    }
}

fn absolute(path: &Path) -> Result<String, Failure> {
    let found: PathBuf = std::path::absolute(path).map_err(|cause| {
        Failure::setup(format!(
            "cannot make `{}` absolute: {cause}",
            path.display()
        ))
    })?;
    found.into_os_string().into_string().map_err(|path| {
        Failure::setup(format!(
            "`{}` is not UTF-8 and cannot be written as JSON",
            path.to_string_lossy()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_gets_its_own_shape() {
        let args = ["connect".to_owned()];
        let of = |whose| wrap(whose, Path::new("/bin/countersign"), &args);
        assert_eq!(
            of(For::Generic),
            json!({"command": "/bin/countersign", "args": ["connect"]})
        );
        assert_eq!(
            of(For::Claude)["mcpServers"]["countersign"],
            of(For::Generic)
        );
        assert_eq!(of(For::Cursor), of(For::Claude));
        let vscode = of(For::Vscode);
        assert_eq!(vscode["servers"]["countersign"]["type"], "stdio");
        assert_eq!(vscode["servers"]["countersign"]["args"], json!(["connect"]));
    }
}
