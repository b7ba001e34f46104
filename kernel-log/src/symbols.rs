//! Source files and lines of a kernel module's code, from its debug information.
//!
//! A module is a relocatable file: its code sections all start at 0, and addresses in its DWARF data
//! are zeros with relocations beside them. So the code sections are laid out one after another, and
//! the relocations of the debug sections are applied for that layout, as the kernel's loader would.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use gimli::{EndianArcSlice, LittleEndian, SectionId};
use object::{
    File, Object, ObjectSection, ObjectSymbol, RelocationKind, RelocationTarget, SectionIndex,
    SectionKind,
};

/// More is never between two functions, in bytes: x86 aligns them to 16, and has them begin with up to
/// 16 for tracing.
const PADDING: u64 = 64;

type Reader = EndianArcSlice<LittleEndian>;

/// Distance between two code sections in the layout, in bytes; no module has as much code.
const APART: u64 = 1 << 28;

/// A module's functions and where their code comes from.
pub(super) struct Symbols {
    /// Address in the layout and size, by name; static functions can share one.
    functions: HashMap<String, Vec<(u64, u64)>>,
    lines: addr2line::Context<Reader>,
}

impl Symbols {
    /// Reads a module with debug information.
    ///
    /// # Errors
    /// A sentence, when it is none.
    pub(super) fn read(path: &Path) -> Result<Symbols, String> {
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let bytes = std::fs::read(path).map_err(|e| told(&e))?;
        let file = File::parse(&*bytes).map_err(|e| told(&e))?;
        let bases: HashMap<SectionIndex, u64> = file
            .sections()
            .filter(|section| section.kind() == SectionKind::Text)
            .zip(1..)
            .map(|(section, number)| (section.index(), number * APART))
            .collect();
        let mut functions: HashMap<String, Vec<(u64, u64)>> = HashMap::new();
        for symbol in file.symbols().filter(|symbol| symbol.size() > 0) {
            let base = symbol.section_index().and_then(|index| bases.get(&index));
            if let (Some(base), Ok(name)) = (base, symbol.name()) {
                let place = (base + symbol.address(), symbol.size());
                functions.entry(name.to_owned()).or_default().push(place);
            }
        }
        let load = |id: SectionId| Ok::<_, gimli::Error>(relocated(&file, id.name(), &bases));
        let dwarf = gimli::Dwarf::load(load).map_err(|e| told(&e))?;
        let lines = addr2line::Context::from_dwarf(dwarf).map_err(|e| told(&e))?;
        Ok(Symbols { functions, lines })
    }

    /// Where `function+offset/size` is in the source, the innermost of inlined functions first. For a
    /// return address, which is after the call it is about, `returns` is set.
    pub(super) fn find(
        &self,
        function: &str,
        offset: u64,
        size: u64,
        returns: bool,
    ) -> Vec<String> {
        let Some(places) = self.functions.get(function) else {
            return Vec::new();
        };
        // The kernel takes what is up to the next function for the size of this one
        // (kernel/module/kallsyms.c, `find_kallsyms_symbol`): padding counts.
        let fits = |own: u64| own <= size && size - own < PADDING;
        let best = places.iter().filter(|(_, own)| fits(*own));
        let Some((start, _)) = best.min_by_key(|(_, own)| size - own) else {
            let sizes: Vec<String> = places.iter().map(|(_, own)| format!("{own:#x}")).collect();
            return vec![format!(
                "(not the module that ran: its {function} has {} bytes)",
                sizes.join(" or ")
            )];
        };
        let address = start + offset - u64::from(returns && offset > 0);
        let Ok(mut frames) = self.lines.find_frames(address).skip_all_loads() else {
            return Vec::new();
        };
        let mut found = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            let name = frame
                .function
                .as_ref()
                .and_then(|name| name.demangle().ok());
            let name = name.map_or_else(|| function.to_owned(), |name| name.into_owned());
            let place = frame
                .location
                .and_then(|place| Some((place.file?, place.line?)));
            if let Some((file, line)) = place {
                found.push(format!("{} at {}:{line}", name, short(file)));
            }
        }
        found
    }
}

/// The builder's own folder says nothing to a reader.
fn short(file: &str) -> &str {
    file.strip_prefix("/build/src/").unwrap_or(file)
}

/// A debug section with its relocations applied; empty when there is none of that name.
fn relocated(file: &File<'_>, name: &str, bases: &HashMap<SectionIndex, u64>) -> Reader {
    let section = file.section_by_name(name);
    let data = section
        .as_ref()
        .and_then(|section| section.uncompressed_data().ok());
    let mut data = data.unwrap_or_default().into_owned();
    for (offset, relocation) in section.iter().flat_map(ObjectSection::relocations) {
        let RelocationTarget::Symbol(index) = relocation.target() else {
            continue;
        };
        let Ok(symbol) = file.symbol_by_index(index) else {
            continue;
        };
        let base = symbol.section_index().and_then(|index| bases.get(&index));
        let value = base.copied().unwrap_or_default() + symbol.address();
        let value = value.wrapping_add_signed(relocation.addend()).to_le_bytes();
        let length = usize::from(relocation.size()) / 8;
        let place = data
            .get_mut(offset as usize..)
            .and_then(|rest| rest.get_mut(..length));
        if let (RelocationKind::Absolute, Some(place), Some(value)) =
            (relocation.kind(), place, value.get(..length))
        {
            place.copy_from_slice(value);
        }
    }
    Reader::new(Arc::from(data), LittleEndian)
}
