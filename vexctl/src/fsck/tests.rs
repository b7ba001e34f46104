use super::*;
use crate::geometry::{Geometry, Wishes};
use crate::mkfs::{Identity, write};

fn fresh() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(64 << 20).unwrap();
    let g = Geometry::of(64 << 20, Wishes::default()).unwrap();
    let id = Identity {
        uuid: [9; 16],
        label: String::new(),
        time: 1,
        uid: 0,
        gid: 0,
    };
    write(file.as_file(), &g, &id).unwrap();
    file
}

#[test]
fn an_empty_file_system_is_sound() {
    let file = fresh();
    let report = check(file.path(), false).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(
        (report.inodes, report.orphans, report.exit_code()),
        (1, 0, 0)
    );
}
