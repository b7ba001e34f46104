//! Data files: `provision/base/recipe.toml` and `packer/variants/*.pkrvars.hcl`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::BuildError;

/// `provision/base/recipe.toml`: what every image is made of; see the comments there.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    pub(crate) packages: Vec<String>,
    /// Kernel series and the meta package that names the newest image package of it.
    pub(crate) kernels: BTreeMap<String, String>,
    pub(crate) builder: BuilderPackages,
    pub(crate) tools: ToolPrograms,
    pub(crate) base: BaseRecipe,
}

impl Recipe {
    /// The recipe with what a variant changes of it.
    pub(crate) fn of(mut self, variant: &Variant) -> Recipe {
        let excludes = variant.path_excludes.iter().cloned();
        self.base.path_excludes.extend(excludes);
        self
    }
}

/// What is in the builder root.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BuilderPackages {
    /// To compile a module.
    pub(crate) packages: Vec<String>,
    /// And to compile a kernel.
    pub(crate) kernel_packages: Vec<String>,
}

/// What is on the tools disk.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolPrograms {
    pub(crate) packages: Vec<String>,
    pub(crate) programs: Vec<PathBuf>,
    pub(crate) crates: Vec<CrateProgram>,
}

/// A program from the Rust crate registry, of the same name as its crate.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CrateProgram {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// How the base differs from what its packages install.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BaseRecipe {
    pub(crate) initramfs_modules: Vec<String>,
    pub(crate) path_excludes: Vec<String>,
    pub(crate) path_includes: Vec<String>,
    pub(crate) enabled_units: Vec<String>,
    pub(crate) masked_generators: Vec<String>,
    pub(crate) masked_units: Vec<String>,
}

/// A variant: the values of the Packer template's variables that are its own.
///
/// The files are read by Packer as HCL and by us as TOML: both agree on `name = value` with strings,
/// numbers, booleans, lists and `#` comments, and a variant needs nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variant {
    pub(crate) image_variant: String,
    pub(crate) disk_size: String,
    pub(crate) memory: u32,
    /// Debian packages on top of the recipe's.
    #[serde(default)]
    pub(crate) packages: Vec<String>,
    /// Files of packages it does without, besides the recipe's.
    #[serde(default)]
    pub(crate) path_excludes: Vec<String>,
    /// Stages of its own, in `provision/variants/<variant>/`.
    #[serde(default)]
    pub(crate) scripts: Vec<String>,
    /// Units enabled besides the recipe's.
    #[serde(default)]
    pub(crate) enabled_units: Vec<String>,
    /// Units the recipe masks and this variant wants.
    #[serde(default)]
    pub(crate) unmasked_units: Vec<String>,
    /// The module goes in with its debug information.
    #[serde(default)]
    pub(crate) debug_module: bool,
    /// The sources of module and control tool go in, ready to be built without network.
    #[serde(default)]
    pub(crate) sources: bool,
    /// The harness's test programs go in.
    #[serde(default)]
    pub(crate) test_programs: bool,
    /// Only modules signed by a key its kernel trusts, and the kernel locked down, where there is one.
    #[serde(default)]
    pub(crate) lockdown: bool,
}

const RECIPE: &str = "provision/base/recipe.toml";
const VARIANTS: &str = "packer/variants";
const VARIANT_HOMES: &str = "provision/variants";
const VARIANT_SUFFIX: &str = ".pkrvars.hcl";

/// Reads the recipe of a workspace.
pub(crate) fn recipe(workspace: &Path) -> Result<Recipe, BuildError> {
    let path = workspace.join(RECIPE);
    let text = fs::read_to_string(&path).map_err(BuildError::io("read", &path))?;
    parse(&path, &text)
}

/// What a variant has of its own beside its packages: files that are laid over the root, and stages.
pub(crate) fn variant_home(workspace: &Path, name: &str) -> PathBuf {
    workspace.join(VARIANT_HOMES).join(name)
}

/// Where the file of a variant is.
pub(crate) fn variant_file(workspace: &Path, name: &str) -> PathBuf {
    workspace
        .join(VARIANTS)
        .join(format!("{name}{VARIANT_SUFFIX}"))
}

/// Reads one variant of a workspace.
pub(crate) fn variant(workspace: &Path, name: &str) -> Result<Variant, BuildError> {
    let unknown = || -> Result<BuildError, BuildError> {
        Ok(BuildError::UnknownVariant {
            variant: name.into(),
            known: variants(workspace)?,
        })
    };
    if name.is_empty() || name.contains(['/', '\0']) {
        return Err(unknown()?);
    }
    let path = variant_file(workspace, name);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(unknown()?),
        Err(error) => return Err(BuildError::io("read", path)(error)),
    };
    let variant: Variant = parse(&path, &text)?;
    if variant.image_variant != name {
        return Err(BuildError::DataFile {
            path,
            said: format!(
                " image_variant is \"{}\", but the file is called {name}{VARIANT_SUFFIX}",
                variant.image_variant
            ),
        });
    }
    Ok(variant)
}

/// The names of all variants of a workspace, sorted.
///
/// # Errors
/// [`BuildError::Io`] when `packer/variants` cannot be read.
pub fn variants(workspace: &Path) -> Result<Vec<String>, BuildError> {
    let dir = workspace.join(VARIANTS);
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).map_err(BuildError::io("list", &dir))? {
        let name = entry.map_err(BuildError::io("list", &dir))?.file_name();
        let name = name.to_string_lossy();
        names.extend(name.strip_suffix(VARIANT_SUFFIX).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

pub(crate) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, BuildError> {
    toml::from_str(text).map_err(|error| BuildError::DataFile {
        path: path.to_owned(),
        said: match error.span() {
            Some(span) => {
                let (line, column) = position(text, span.start);
                format!("{line}:{column}: {}", error.message())
            }
            None => format!(" {}", error.message()),
        },
    })
}

/// Line and column, both from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
    }

    fn said(text: &str) -> String {
        let error = parse::<Variant>(Path::new("v.pkrvars.hcl"), text).expect_err("a mistake");
        error.to_string()
    }

    #[test]
    fn every_variant_and_the_recipe_of_this_repository_can_be_read() {
        recipe(workspace()).expect("the recipe");
        let names = variants(workspace()).expect("the list");
        assert!(names.contains(&"minimal".into()), "{names:?}");
        for name in names {
            variant(workspace(), &name).expect("a variant");
        }
    }

    #[test]
    fn an_unknown_variant_is_told_the_known_ones() {
        for name in ["minimum", "", "../variants/minimal"] {
            let error = variant(workspace(), name).expect_err("unknown").to_string();
            assert!(error.contains(&format!("no variant `{name}`")), "{error}");
            assert!(error.contains("minimal"), "{error}");
        }
    }

    #[test]
    fn a_mistake_is_shown_with_line_and_column() {
        let start = "image_variant = \"x\"\ndisk_size = \"8G\"\n";
        assert_eq!(
            said(&format!("{start}memory = \"much\"\n")),
            "v.pkrvars.hcl:3:10: invalid type: string \"much\", expected u32"
        );
        assert!(said(&format!("{start}memory = 1\nmemroy = 2\n")).contains(":4:1: unknown field"));
        assert!(said(&format!("{start}memory = = 1\n")).contains(":3:"));
        assert!(
            said(start).contains("missing field `memory`"),
            "{}",
            said(start)
        );
    }
}
