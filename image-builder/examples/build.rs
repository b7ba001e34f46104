//! Builds an image without the command line tool: `cargo run -p image-builder --example build -- [SOURCE]`.
//! Prints every event as a line of JSON.

use image_builder::{BuildError, BuildEvent, BuildRequest, ToolsRequest, build, tools_disk};

fn main() -> std::process::ExitCode {
    keeper::hook();
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let workspace = std::env::var("WORKSPACE").unwrap_or_else(|_| here.into());
    let mut request = BuildRequest::new(&workspace);
    let mut tools = ToolsRequest::new(&workspace);
    if let Some(out) = std::env::var_os("OUT") {
        request.out_dir = out.into();
        tools.out_dir.clone_from(&request.out_dir);
    }
    let argument = std::env::args().nth(1);
    let show = |event: &BuildEvent| {
        if let Ok(line) = serde_json::to_string(event) {
            println!("{line}");
        }
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let result: Result<String, BuildError> = runtime.block_on(async {
        if argument.as_deref() == Some("--tools") {
            tools.verbose = true;
            return Ok(tools_disk(&tools, &show).await?.display().to_string());
        }
        if let Some(source) = argument {
            request.source = source.into();
        }
        Ok(build(&request, &show).await?.dir.display().to_string())
    });
    match result {
        Ok(path) => {
            println!("{path}");
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}
