//! The Debian packages of a build, resolved to exact versions.

use image::{KernelRecord, SourceConfig};

use crate::archive::{Archive, Deb, PackageSet};
use crate::request::data::{Recipe, Variant};
use crate::request::kernel::Compiled;
use crate::run::Site;
use crate::stages::{builder, linux};
use crate::{BuildError, BuildRequest, KernelChoice};

/// The Debian packages of a build, resolved to exact versions.
#[derive(Debug)]
pub(crate) struct Packages {
    /// The distribution's kernel.
    pub(crate) distribution: KernelRecord,
    /// The one that is compiled from source.
    pub(crate) compiled: Option<KernelRecord>,
    /// What is asked for in the base, and all that comes with it.
    pub(crate) base: (Vec<String>, PackageSet),
    /// The builder root.
    pub(crate) builder: builder::Root,
}

impl Packages {
    /// The kernel that boots, and the one beside it.
    pub(crate) fn kernels(&self, choice: &KernelChoice) -> (&KernelRecord, Option<&KernelRecord>) {
        match (choice, &self.compiled) {
            (KernelChoice::Source(_), Some(compiled)) => (compiled, None),
            (_, compiled) => (&self.distribution, compiled.as_ref()),
        }
    }
}

/// Resolves the packages of a build to exact versions.
pub(crate) async fn resolve(
    site: &Site<'_>,
    archive: &Archive,
    recipe: &Recipe,
    variant: &Variant,
    config: &SourceConfig,
    (request, compiled): (&BuildRequest, Option<&Compiled>),
) -> Result<Packages, BuildError> {
    let series = request.kernel_version.as_str();
    let (package, version) = archive.newest(site, &recipe.kernels[series]).await?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    let has_package = request.kernel.has_package();
    let of_variant = variant.packages.iter();
    if let Some(package) = of_variant.clone().find(|name| name.contains(PLACEHOLDER))
        && !has_package
    {
        return Err(BuildError::BadRequest {
            field: "--kernel",
            value: request.kernel.to_string(),
            remedy: format!(
                "variant {} wants {package}, which only the distribution's kernel has: use both:PRESET",
                variant.image_variant
            ),
        });
    }
    let mut base = vec!["?essential".to_owned(), "apt".into()];
    base.push(match has_package {
        true => package.clone(),
        // What the kernel's own package would have brought.
        false => "linux-base".into(),
    });
    base.extend(
        recipe
            .packages
            .iter()
            .chain(of_variant)
            .chain(&config.runtime_packages)
            .map(|name| name.replace(PLACEHOLDER, &release)),
    );
    let source = compiled.map(|_| series);
    let asked = builder::packages(recipe, config, &release, source);
    let base_set = archive.resolve(site, &base).await?;
    let set = archive.resolve(site, &asked).await?;
    let compiled = match compiled {
        None => None,
        Some(compiled) => Some(compiled_kernel(compiled, series, &set)?),
    };
    Ok(Packages {
        distribution: KernelRecord {
            series: series.into(),
            release: release.clone(),
            package,
            version,
            compiled: None,
        },
        base: (base, base_set),
        builder: builder::Root {
            packages: asked,
            set,
            release,
            compiled: compiled.as_ref().map(|kernel| kernel.release.clone()),
        },
        compiled,
    })
}

/// Stands for the release of the distribution's kernel in names of packages.
const PLACEHOLDER: &str = "@KERNEL@";

/// What the kernel that is compiled from the source in `set` will be.
fn compiled_kernel(
    compiled: &Compiled,
    series: &str,
    set: &PackageSet,
) -> Result<KernelRecord, BuildError> {
    let source = format!("linux-source-{series}");
    let debs = set.debs.iter().map(Deb::name_version);
    let version = debs.into_iter().find(|(name, _)| *name == source);
    let (_, version) = version.ok_or_else(|| BuildError::Packages {
        said: format!("no {source} among the packages of the builder root"),
    })?;
    let release = compiled.release(&version);
    Ok(KernelRecord {
        series: series.into(),
        package: linux::package(&release),
        release,
        version,
        compiled: None,
    })
}
