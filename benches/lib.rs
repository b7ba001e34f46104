//! Benchmarks: each file asks one question a user asks, with criterion. `cargo bench --bench boot`.
//!
//! Figures are only comparable between runs on one host: see the accelerator and versions that a
//! benchmark of machines prints before it starts. Here is what several of them need.

use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter};
use host_harness::dossier::Policy;
use host_harness::host::{Host, HostRequest};
use host_harness::lab::{BOOT_DEADLINE, FIRST_ANSWER, Setup};
use host_harness::layout::Layout;
use image_builder::{Image, ToolsRequest};

/// The minimal image and its tools on this host, as checks get them; prints what host it is.
///
/// # Panics
/// With the remedy, when the image is not there: a benchmark has nobody to return an error to.
pub async fn minimal() -> Setup {
    let layout = Layout::find(None).expect("run it in the checkout");
    let host = Host::probe(&layout, HostRequest::default())
        .await
        .expect("a usable host");
    for (name, value) in host.facts() {
        eprintln!("{name}: {value}");
    }
    let image = Image::find(&layout.out, "minimal")
        .expect("a sound image")
        .expect("no minimal image: run `cargo images build --variants minimal`");
    let request = ToolsRequest {
        out_dir: layout.out.clone(),
        cache_dir: layout.cache.clone(),
        ..ToolsRequest::new(&layout.workspace)
    };
    let tools = image_builder::tools_disk(&request, &())
        .await
        .expect("a tools disk");
    Setup {
        layout,
        host,
        image,
        tools,
        boot_deadline: BOOT_DEADLINE,
        agent_deadline: FIRST_ANSWER,
        breaks: Vec::new(),
        dossiers: Policy::none(),
        seed: None,
    }
}

/// For criterion to measure something else than time; the text is its unit.
#[derive(Debug, Clone, Copy)]
pub struct Quantity(pub &'static str);

impl Measurement for Quantity {
    type Intermediate = ();
    type Value = f64;

    /// Only `iter_custom` makes sense: the value comes from the routine.
    fn start(&self) {}

    fn end(&self, (): ()) -> f64 {
        0.0
    }

    fn add(&self, one: &f64, two: &f64) -> f64 {
        one + two
    }

    fn zero(&self) -> f64 {
        0.0
    }

    fn to_f64(&self, value: &f64) -> f64 {
        *value
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for Quantity {
    fn scale_values(&self, _typical: f64, _values: &mut [f64]) -> &'static str {
        self.0
    }

    fn scale_throughputs(&self, _: f64, _: &Throughput, _: &mut [f64]) -> &'static str {
        self.0
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        self.0
    }
}
