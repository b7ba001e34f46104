//! Where in the user's source a finding is.

use std::path::Path;

use kernel_log::Finding;
use kernel_log::symbolize::annotate;

use results::Subject;

/// The mark by which [`annotate`] puts a source line below a line of the report.
const MARK: &str = "^ ";

/// Functions with file and line, the innermost first: where the processor was if that is in the module,
/// else the first of its functions in the trace.
pub(super) fn of(finding: &Finding, subject: &Subject, source: &Path) -> Vec<String> {
    let report = finding.excerpt.join("\n");
    let explained = annotate(&report, &subject.name, Some(&subject.debug));
    first(&explained)
        .into_iter()
        .map(|place| in_tree(&place, source))
        .collect()
}

fn first(explained: &str) -> Vec<String> {
    let lines: Vec<&str> = explained.lines().map(str::trim_start).collect();
    let mut blocks: Vec<(bool, Vec<String>)> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(place) = line.strip_prefix(MARK) else {
            continue;
        };
        match lines[at.saturating_sub(1)] {
            before if before.starts_with(MARK) && !blocks.is_empty() => {
                if let Some((_, block)) = blocks.last_mut() {
                    block.push(place.to_owned());
                }
            }
            before => blocks.push((before.contains("RIP:"), vec![place.to_owned()])),
        }
    }
    let at = blocks.iter().position(|(rip, _)| *rip).unwrap_or(0);
    match at < blocks.len() {
        true => blocks.swap_remove(at).1,
        false => Vec::new(),
    }
}

/// `f at super.c:12` with the path of the file as the user would open it.
fn in_tree(place: &str, source: &Path) -> String {
    match place.split_once(" at ") {
        Some((function, file)) if !file.starts_with('/') => {
            let path = source.join(file);
            let here = std::env::current_dir().unwrap_or_default();
            let path = path.strip_prefix(&here).unwrap_or(&path);
            format!("{}: {function}", path.display())
        }
        Some((function, file)) => format!("{file}: {function}"),
        None => place.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processors_place_comes_before_the_traces() {
        let explained = "\
BUG: kernel NULL pointer dereference
 a+0x1/0x2 [m]
            ^ a at a.c:1
RIP: 0010:b+0x1/0x2 [m]
            ^ inner at b.h:2
            ^ b at b.c:3
";
        assert_eq!(first(explained), ["inner at b.h:2", "b at b.c:3"]);
        let trace = "RIP: 0010:memcpy+0x1/0x2\n c+0x1/0x2 [m]\n   ^ c at c.c:9\n";
        assert_eq!(first(trace), ["c at c.c:9"]);
        assert!(first("nothing").is_empty());
    }

    #[test]
    fn a_place_can_be_opened() {
        let source = Path::new("/elsewhere/tree");
        assert_eq!(
            in_tree("f at d/a.c:1", source),
            "/elsewhere/tree/d/a.c:1: f"
        );
        assert_eq!(in_tree("f at /k/a.h:1", source), "/k/a.h:1: f");
        assert_eq!(in_tree("(not the module)", source), "(not the module)");
    }
}
