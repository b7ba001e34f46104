//! A gallery's rows: what the last run of each case has shown, as JSON for whoever looks at a run and as a
//! table in a README that may not say anything else than the data.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use libtest_mimic::Failed;
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};

/// Where the tables are, below the workspace.
const README: &str = "faults/README.md";

/// Version of the files' form.
const SCHEMA: u32 = 1;

/// What a row of this name took, in words.
pub type Seconds<'a> = dyn Fn(&str) -> String + 'a;

/// One gallery.
pub struct Gallery {
    /// Name of its file and its folder below the reports.
    pub name: &'static str,
    /// What the file calls the rows.
    pub rows: &'static str,
    /// What its table in the README stands between.
    pub marks: (&'static str, &'static str),
    /// Where its data are.
    pub source: &'static str,
}

impl Gallery {
    /// Adds a row to the report. Each case runs in a process of its own: rows are files, and whoever
    /// holds the lock puts all of them together.
    pub fn add(
        &self,
        name: &str,
        row: &Value,
        all: impl Iterator<Item = &'static str>,
    ) -> Result<(), Failed> {
        let reports = super::layout()?.reports();
        let rows = reports.join(self.name);
        fs::create_dir_all(&rows)?;
        let lock = File::create(rows.join(".lock"))?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
        publish(&rows.join(format!("{name}.json")), row)?;
        let all: Vec<Value> = all.filter_map(|name| read(&rows, name)).collect();
        let file = reports.join(format!("{}.json", self.name));
        publish(&file, &json!({ "schema": SCHEMA, self.rows: all }))
    }

    /// The README's table says what the data say: `lines` makes it, given the seconds of each row.
    /// `UPDATE_GOLDEN=1` writes it anew, with the seconds that the last run of each case has left.
    pub fn holds(&self, lines: impl Fn(&Seconds<'_>) -> String) -> Result<(), Failed> {
        let layout = super::layout()?;
        let path = layout.workspace.join(README);
        let text = fs::read_to_string(&path)?;
        let (begin, end) = self.marks;
        let (before, rest) = text.split_once(begin).ok_or("no table in the README")?;
        let (table, after) = rest.split_once(end).ok_or("the table has no end")?;
        if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
            let rows = layout.reports().join(self.name);
            let seconds = |name: &str| read(&rows, name)?["seconds"].as_f64();
            let table = lines(&|name| {
                seconds(name).map_or("not run".into(), |seconds| format!("{seconds:.1}"))
            });
            return Ok(fs::write(
                &path,
                format!("{before}{begin}{table}{end}{after}"),
            )?);
        }
        // The last column is what was measured.
        let told = |text: &str| -> Vec<String> {
            let rows = text.lines().map(|line| line.trim_end_matches('|'));
            rows.map(|row| {
                row.rsplit_once('|')
                    .map_or(row, |(data, _)| data)
                    .to_owned()
            })
            .collect()
        };
        if told(table) == told(&lines(&|_| String::new())) {
            return Ok(());
        }
        Err(format!(
            "{README} does not say what {} says: UPDATE_GOLDEN=1 cargo nextest run -p host-harness \
             -E 'test(the_readme_is_true)' --ignore-default-filter",
            self.source
        )
        .into())
    }
}

fn read(rows: &Path, name: &str) -> Option<Value> {
    let text = fs::read_to_string(rows.join(format!("{name}.json"))).ok()?;
    serde_json::from_str(&text).ok()
}

fn publish(path: &Path, value: &Value) -> Result<(), Failed> {
    let draft = PathBuf::from(format!("{}.draft", path.display()));
    fs::write(&draft, serde_json::to_string_pretty(value)? + "\n")?;
    Ok(fs::rename(draft, path)?)
}
