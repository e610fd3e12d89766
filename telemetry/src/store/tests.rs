use std::{
    io,
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use super::*;

/// Memory that outlives a store.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Vec<&'static [AtomicU64]>>>);

impl Shared {
    fn copy(&self) -> Self {
        let segments = self.0.lock().unwrap();
        let copies = segments.iter().map(|s| leak(s.iter().map(|word| word.load(Relaxed)))).collect();
        Self(Arc::new(Mutex::new(copies)))
    }

    fn word(&self, at: usize) -> &'static AtomicU64 {
        &self.0.lock().unwrap()[at / SEGMENT][at % SEGMENT]
    }
}

fn leak(words: impl Iterator<Item = u64>) -> &'static [AtomicU64] {
    Box::leak(words.map(AtomicU64::new).collect())
}

impl Memory for Shared {
    fn segments(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn segment(&self, number: usize) -> &[AtomicU64] {
        self.0.lock().unwrap()[number]
    }

    fn grow(&mut self) -> io::Result<()> {
        self.0.lock().unwrap().push(leak(std::iter::repeat_n(0, SEGMENT)));
        Ok(())
    }
}

fn open(memory: &Shared) -> (Store, Found) {
    Store::open(Box::new(memory.clone())).unwrap()
}

fn series(value: u64) -> Image {
    let mut image = [0; BLOCK];
    (image[0], image[5]) = (kind::SERVICE, value);
    image
}

fn numbers(first: u64, eighth: u64) -> [u64; NUMBER_COUNT] {
    let mut numbers = [0; NUMBER_COUNT];
    (numbers[0], numbers[7]) = (first, eighth);
    numbers
}

/// What who opens the memory sees: two numbers and two blocks.
fn seen(memory: &Shared) -> (u64, u64, Vec<(u32, u64)>) {
    let (store, found) = open(memory);
    (store.number(0), store.number(7), found.blocks.iter().map(|(block, image)| (*block, image[5])).collect())
}

#[test]
fn a_step_happens_whole_or_not_at_all_wherever_it_is_cut_off() {
    let memory = Shared::default();
    let (mut store, _) = open(&memory);
    let a = store.claim().unwrap();
    store.make(a, &series(10));
    store.set_numbers(&numbers(1, 0));
    store.commit();
    let before = (1, 0, vec![(a, 10)]);
    assert_eq!(seen(&memory), before);

    // The next step changes one block, makes another, and moves two numbers.
    let b = store.claim().unwrap();
    store.change(a, 5, &[11]);
    store.make(b, &series(20));
    store.set_numbers(&numbers(2, 3));
    let after = (2, 3, vec![(a, 11), (b, 20)]);
    let logged = store.logged;
    assert_eq!(seen(&memory.copy()), before, "written down, and not committed");
    for applied in 0..=logged {
        let cut = memory.copy();
        cut.word(LOGGED).store(logged as u64, Relaxed);
        assert_eq!(seen(&cut.copy()), before);
        cut.word(COMMITTED).store(2, Relaxed);
        for entry in 0..applied {
            let [at, value] = [0, 1].map(|n| cut.word(LOG + 2 * entry + n).load(Relaxed));
            cut.word(at as usize).store(value, Relaxed);
        }
        assert_eq!(seen(&cut), after, "committed, and {applied} of {logged} words changed");
        assert_eq!(seen(&cut), after, "and again");
    }
    store.commit();
    assert_eq!(seen(&memory), after);

    // A block that is released is used again, in the step after the one in which it became free.
    store.release(a);
    assert_ne!(store.claim(), Some(a));
    assert_eq!(seen(&memory.copy()), after);
    store.commit();
    assert_eq!(seen(&memory), (2, 3, vec![(b, 20)]));
    assert_eq!(store.claim(), Some(a));
}

#[test]
fn memory_grows_by_segments_and_blocks_of_nobody_are_given_out_again() {
    let memory = Shared::default();
    let (mut store, _) = open(&memory);
    let blocks: Vec<_> = (0..BLOCKS + 5).map(|_| store.claim().unwrap()).collect();
    assert_eq!(blocks, (1..BLOCKS + 6).collect::<Vec<_>>());
    assert_eq!(memory.segments(), HEAD + 2);
    for some in blocks.chunks(100) {
        some.iter().for_each(|block| store.make(*block, &series(u64::from(*block))));
        store.commit();
    }

    let (mut store, found) = open(&memory);
    assert_eq!(found.blocks.len(), blocks.len());
    store.settle(&|block| block != 7 && block <= BLOCKS + 5);
    assert_eq!([store.claim(), store.claim()], [Some(7), Some(BLOCKS + 6)]);
    assert_eq!(open(&memory).1.blocks.len(), blocks.len() - 1);
}

#[test]
fn memory_of_somebody_else_is_refused() {
    let memory = Shared::default();
    drop(open(&memory));
    memory.word(0).fetch_add(1 << 56, Relaxed);
    assert!(matches!(Store::open(Box::new(memory)), Err(StoreError::Unknown)));
}

#[test]
fn texts_of_any_length_are_read_back_and_shared() {
    let memory = Shared::default();
    let (mut store, _) = open(&memory);
    let (mut fragments, mut texts) = (crate::fragment::Fragments::default(), Texts::default());
    let long = "e\u{301}ñ漢".repeat(1000);
    for text in ["x", &long, &long[..112], &long[..113]] {
        let fragment = fragments.intern(text);
        let block = texts.hold(&mut store, &fragment).unwrap();
        assert_eq!(texts.hold(&mut store, &fragment), Some(block));
        store.commit();
        let mut used = Vec::new();
        assert_eq!(read_text(&store, block, |block| used.push(block)).as_deref(), Some(text));
        assert_eq!(used.len(), text.len().div_ceil(112));
        texts.release(&mut store, block);
        store.commit();
        assert!(read_text(&store, block, |_| ()).is_some(), "one still has it");
        texts.release(&mut store, block);
        store.commit();
        assert_eq!(read_text(&store, block, |_| ()), None);
    }
    assert!((1..BLOCKS).all(|_| store.claim().is_some()));
    assert_eq!(memory.segments(), HEAD + 1, "all of it was free again");
}
