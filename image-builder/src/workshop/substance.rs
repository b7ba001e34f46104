//! What of a module the kernel acts on, apart from what only says where it came from.
//!
//! A comment more in a source file moves lines: debug information changes, and with it the build id,
//! which is a digest over both. A renamed variable changes `srcversion`, which is a digest over the
//! source. Neither changes what the module does.

use object::{
    File, Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags,
};

use crate::store::key;

/// Sections the kernel keeps (elf(5), `SHF_ALLOC`).
const ALLOC: u64 = 2;
/// The digest over everything.
const BUILD_ID: &str = ".note.gnu.build-id";
/// `name=value` strings about the module.
const MODINFO: &str = ".modinfo";
/// Those of them that only say what source it came from.
const ORIGIN: &[&str] = &["srcversion="];

/// Digest of what the kernel acts on in a module, in hex.
///
/// # Errors
/// A sentence, when it is none.
pub(super) fn digest(module: &[u8]) -> Result<String, String> {
    let file = File::parse(module).map_err(|error| format!("it is no module: {error}"))?;
    let mut text = Vec::new();
    let mut put = |parts: &[&[u8]]| {
        for part in parts {
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part);
        }
    };
    let counts = |section: &object::Section<'_, '_>| {
        let kept = matches!(section.flags(), SectionFlags::Elf { sh_flags, .. } if sh_flags.0 & ALLOC != 0);
        kept && section.name() != Ok(BUILD_ID)
    };
    for section in file.sections().filter(counts) {
        let name = section.name().unwrap_or_default();
        let data = section.data().map_err(|error| format!("{name}: {error}"))?;
        let flags = format!(
            "{:?} {} {}",
            section.flags(),
            section.align(),
            section.size()
        );
        put(&[b"section", name.as_bytes(), flags.as_bytes()]);
        match name {
            MODINFO => {
                for string in data.split(|byte| *byte == 0) {
                    let origin = |prefix: &&str| string.starts_with(prefix.as_bytes());
                    if !ORIGIN.iter().any(origin) {
                        put(&[string]);
                    }
                }
            }
            _ => put(&[data]),
        }
        for (offset, relocation) in section.relocations() {
            let kind = match relocation.flags() {
                RelocationFlags::Elf { r_type, .. } => r_type.0,
                _ => 0,
            };
            let target = match relocation.target() {
                RelocationTarget::Symbol(index) => symbol(&file, file.symbol_by_index(index).ok()),
                _ => String::new(),
            };
            let place = format!("{offset} {kind} {} {target}", relocation.addend());
            put(&[b"relocation", place.as_bytes()]);
        }
    }
    // What backtraces name.
    let mut symbols: Vec<String> = file
        .symbols()
        .filter(|one| one.size() > 0)
        .map(|one| format!("{} {}", one.size(), symbol(&file, Some(one))))
        .collect();
    symbols.sort();
    put(&[b"symbols", symbols.join("\n").as_bytes()]);
    Ok(key::digest(text))
}

/// A symbol by name and place: its number changes with the debug information.
fn symbol(file: &File<'_>, symbol: Option<object::Symbol<'_, '_>>) -> String {
    let Some(symbol) = symbol else {
        return String::new();
    };
    let section = symbol
        .section_index()
        .and_then(|index| file.section_by_index(index).ok());
    let section = section.and_then(|section| section.name().ok().map(str::to_owned));
    format!(
        "{} {} {}",
        symbol.name().unwrap_or_default(),
        section.unwrap_or_default(),
        symbol.address()
    )
}
