//! Many hands on one store. The snapshots are files with made-up content; nothing boots.

use super::*;
use crate::snapshot::manifest::Draft;
use crate::{MachineSpec, Version};

fn store(cap: u64) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path().join("snapshots"), cap).expect("opens");
    (dir, store)
}

fn key(name: &str) -> Key {
    Key(name.into())
}

/// Writes what a maker would, with 1 MiB of memory.
fn fill(making: &Making, key: &Key) {
    std::fs::write(making.dir().join(files::RAM), vec![7; 1 << 20]).expect("writes");
    std::fs::write(making.dir().join(files::STATE), "state").expect("writes");
    let draft = Draft {
        key: key.clone(),
        spec: MachineSpec {
            image: None,
            ..MachineSpec::new("m", "/i", "/l")
        },
        image_digest: "00".into(),
        agent_version: "1".into(),
        qemu: Version {
            number: (7, 2, 22),
            package: String::new(),
        },
        took: 1.0,
        memory_bytes: 1 << 20,
    };
    Manifest::write(making.dir(), draft).expect("writes");
}

async fn make(store: &Store, key: &Key) -> (PathBuf, Lease) {
    match store.claim(key).await.expect("claims") {
        Claim::Make(making) => {
            fill(&making, key);
            making.publish().expect("publishes")
        }
        Claim::Use(..) => panic!("{key} is there already"),
    }
}

fn is_use(claim: &Claim) -> bool {
    matches!(claim, Claim::Use(..))
}

/// Long enough for a claim that does not have to wait.
const SOON: Duration = Duration::from_millis(200);

#[tokio::test]
async fn the_first_makes_it_and_the_others_wait_and_use_it() {
    let (_dir, store) = store(DEFAULT_CAP);
    let key = key("a");
    let Claim::Make(making) = store.claim(&key).await.expect("claims") else {
        panic!("used")
    };
    assert!(
        tokio::time::timeout(SOON, store.claim(&key)).await.is_err(),
        "two makers"
    );
    fill(&making, &key);
    assert!(
        store.list().expect("lists").is_empty(),
        "a draft is not a snapshot"
    );
    let waiting = store.claim(&key);
    let publishing = async {
        tokio::task::yield_now().await;
        making.publish().expect("publishes")
    };
    let (waited, (place, _lease)) = tokio::join!(waiting, publishing);
    assert!(is_use(&waited.expect("claims")));
    assert!(place.join(files::RAM).exists());
    assert!(
        is_use(&store.claim(&key).await.expect("claims")),
        "many may use it"
    );
}

#[tokio::test]
async fn when_the_maker_fails_the_next_one_tries() {
    let (_dir, store) = store(DEFAULT_CAP);
    let Claim::Make(making) = store.claim(&key("a")).await.expect("claims") else {
        panic!("used")
    };
    let draft = making.dir().to_owned();
    drop(making);
    assert!(!draft.exists(), "a failed draft is left");
    assert!(!is_use(&store.claim(&key("a")).await.expect("claims")));
}

#[tokio::test]
async fn a_snapshot_that_was_tampered_with_is_made_anew() {
    for damage in [files::RAM, files::STATE, files::MANIFEST] {
        let (_dir, store) = store(DEFAULT_CAP);
        let (place, lease) = make(&store, &key("a")).await;
        drop(lease);
        assert!(is_use(&store.claim(&key("a")).await.expect("claims")));
        let file = place.join(damage);
        let mut content = std::fs::read(&file).expect("reads");
        content[0] ^= 1;
        std::fs::write(&file, content).expect("writes");
        let claim = tokio::time::timeout(SOON, store.claim(&key("a")))
            .await
            .expect("no wait");
        assert!(!is_use(&claim.expect("claims")), "{damage} was changed");
        assert!(!place.exists());
    }
}

#[tokio::test]
async fn the_longest_unused_goes_first_and_what_is_in_use_stays() {
    let (_dir, store) = store(3 << 20);
    for (age, name) in [
        (50, "old"),
        (40, "older-but-in-use"),
        (30, "middle"),
        (0, "new"),
    ] {
        let (place, lease) = make(&store, &key(name)).await;
        drop(lease);
        let used = File::options()
            .write(true)
            .open(place.join(files::USED))
            .expect("opens");
        used.set_modified(SystemTime::now() - Duration::from_secs(age))
            .expect("sets");
    }
    let hold = store.lock(&key("older-but-in-use"), Hold::Shared);
    let _hold = hold.expect("opens").expect("locks");
    let names = |store: &Store| -> Vec<String> {
        store
            .list()
            .expect("lists")
            .into_iter()
            .map(|listed| listed.key.0)
            .collect()
    };
    assert_eq!(names(&store), ["new", "middle", "older-but-in-use", "old"]);
    let freed = store.evict().expect("evicts");
    assert!(freed >= 2 << 20, "{freed}");
    assert_eq!(names(&store), ["new", "older-but-in-use"]);
    let busy: Vec<bool> = store
        .list()
        .expect("lists")
        .iter()
        .map(|l| l.busy)
        .collect();
    assert_eq!(busy, [false, true]);
    store.clean().expect("cleans");
    assert_eq!(names(&store), ["older-but-in-use"]);
    assert!(!store.remove(&key("older-but-in-use")).expect("asks"));
}

#[tokio::test]
async fn drafts_of_the_dead_are_cleaned_and_those_of_the_living_are_not() {
    let (_dir, store) = store(DEFAULT_CAP);
    let dead = store.dir.join(".draft-dead");
    std::fs::create_dir(&dead).expect("makes");
    std::fs::write(dead.join(files::RAM), vec![1; 4096]).expect("writes");
    let Claim::Make(making) = store.claim(&key("a")).await.expect("claims") else {
        panic!("used")
    };
    assert_eq!(store.clean().expect("cleans"), 0);
    assert!(making.dir().exists() && dead.exists());
    drop(making);
    assert_eq!(store.clean().expect("cleans"), 4096);
    assert!(!dead.exists());
}
