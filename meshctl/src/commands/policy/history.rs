//! `meshctl policy history` and `show`.

use model::admin::{PolicyContent, PolicyVersionView};

use crate::arguments::Targets;
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Table, Tone, time};

pub(super) async fn history(targets: &Targets, output: &Output) -> Result<(), Failure> {
    let versions: Vec<PolicyVersionView> = connect::coordinator(targets)?
        .get("/v1/policy/versions")
        .await?;
    output.show("PolicyHistory", &versions, |output| {
        let mut table = Table::new(&["VERSION", "WHEN", "WHO", "CONTENT", "MESSAGE"]);
        for version in &versions {
            let number = version.version.to_string();
            table.row([
                if version.current {
                    output.paint(Tone::Good, &format!("{number} *"))
                } else {
                    number
                },
                time(version.created_secs),
                version.author.clone(),
                version.content_digest.chars().take(12).collect(),
                version.message.clone(),
            ]);
        }
        table.text("there is no policy yet")
    });
    Ok(())
}

pub(super) async fn show(
    version: Option<u64>,
    targets: &Targets,
    output: &Output,
) -> Result<(), Failure> {
    let path = match version {
        Some(version) => format!("/v1/policy/versions/{version}"),
        None => "/v1/policy".into(),
    };
    let content: PolicyContent = connect::coordinator(targets)?.get(&path).await?;
    output.show("Policy", &content, |_| {
        let files: Vec<String> = content
            .files
            .iter()
            .map(|file| format!("# {}\n{}", file.path, file.text.trim_end()))
            .collect();
        format!(
            "# version {}, {}, by {}\n{}",
            content.view.version,
            time(content.view.created_secs),
            content.view.author,
            files.join("\n\n")
        )
    });
    Ok(())
}
