//! A persistent array of numbered places: a clone is a few reference counts, and a changed clone shares all but the path it changed.

use std::sync::Arc;

const CHUNK: usize = 16;
const ROW: usize = 64;
const NONE: u32 = u32::MAX;

/// Things by number. A number is given out again once its thing is gone.
#[derive(Clone, Debug)]
pub(crate) struct Shelf<T> {
    rows: Vec<Arc<[Arc<Chunk<T>>; ROW]>>,
    /// The first free place, which names the next.
    free: u32,
    len: usize,
}

type Chunk<T> = [Place<T>; CHUNK];

#[derive(Clone, Debug)]
enum Place<T> {
    Taken(T),
    Free { next: u32 },
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), free: NONE, len: 0 }
    }
}

impl<T: Clone> Shelf<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, number: u32) -> &T {
        let number = number as usize;
        match &self.rows[number / (CHUNK * ROW)][number / CHUNK % ROW][number % CHUNK] {
            Place::Taken(thing) => thing,
            Place::Free { .. } => unreachable!("an index names only places that are taken"),
        }
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> &mut T {
        match self.place(number) {
            Place::Taken(thing) => thing,
            Place::Free { .. } => unreachable!("an index names only places that are taken"),
        }
    }

    pub(crate) fn add(&mut self, thing: T) -> u32 {
        if self.free == NONE {
            self.grow();
        }
        let number = self.free;
        let Place::Free { next } = std::mem::replace(self.place(number), Place::Taken(thing)) else {
            unreachable!("the free list names only free places")
        };
        self.free = next;
        self.len += 1;
        number
    }

    pub(crate) fn remove(&mut self, number: u32) -> T {
        let next = self.free;
        let Place::Taken(thing) = std::mem::replace(self.place(number), Place::Free { next }) else {
            unreachable!("an index names only places that are taken")
        };
        self.free = number;
        self.len -= 1;
        thing
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let places = self.rows.iter().flat_map(|row| row.iter()).flat_map(|chunk| chunk.iter());
        places.filter_map(|p| if let Place::Taken(thing) = p { Some(thing) } else { None })
    }

    fn place(&mut self, number: u32) -> &mut Place<T> {
        let number = number as usize;
        let row = Arc::make_mut(&mut self.rows[number / (CHUNK * ROW)]);
        &mut Arc::make_mut(&mut row[number / CHUNK % ROW])[number % CHUNK]
    }

    /// Adds a row of free places.
    fn grow(&mut self) {
        let first = self.rows.len() * CHUNK * ROW;
        let end = first + CHUNK * ROW;
        let chunk = |c: usize| -> Chunk<T> {
            std::array::from_fn(|i| {
                let next = first + c * CHUNK + i + 1;
                Place::Free { next: if next == end { NONE } else { u32::try_from(next).unwrap_or(NONE) } }
            })
        };
        self.rows.push(Arc::new(std::array::from_fn(|c| Arc::new(chunk(c)))));
        self.free = u32::try_from(first).expect("memory ends before four thousand million things");
    }
}
