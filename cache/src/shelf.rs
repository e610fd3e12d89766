//! A persistent array of numbered places: a clone is a few reference counts, and a changed clone shares all but the path it changed.

use std::sync::Arc;

const CHUNK: usize = 16;
const CHUNKS: usize = 64;
const ROW: usize = CHUNK * CHUNKS;

/// Things by number. The number of a thing that is gone is given out again, small ones first.
#[derive(Clone, Debug)]
pub(crate) struct Shelf<T> {
    rows: Vec<Row<T>>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Row<T> {
    taken: u32,
    places: Arc<Places<T>>,
}

#[derive(Clone, Debug)]
struct Places<T> {
    chunks: [Arc<[Option<T>; CHUNK]>; CHUNKS],
    /// A bit for each place of a chunk: set if it is taken.
    taken: [u16; CHUNKS],
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), len: 0 }
    }
}

impl<T: Clone> Shelf<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the thing of a number that is in use.
    pub(crate) fn get(&self, number: u32) -> &T {
        let number = number as usize;
        self.rows[number / ROW].places.chunks[number / CHUNK % CHUNKS][number % CHUNK].as_ref().expect(IN_USE)
    }

    /// Returns the thing of a number that is in use, to be changed.
    pub(crate) fn get_mut(&mut self, number: u32) -> &mut T {
        let number = number as usize;
        let places = Arc::make_mut(&mut self.rows[number / ROW].places);
        Arc::make_mut(&mut places.chunks[number / CHUNK % CHUNKS])[number % CHUNK].as_mut().expect(IN_USE)
    }

    pub(crate) fn add(&mut self, thing: T) -> u32 {
        let free_row = self.rows.iter().position(|row| (row.taken as usize) < ROW);
        let row_number = free_row.unwrap_or_else(|| {
            self.rows.push(Row::default());
            self.rows.len() - 1
        });
        let row = &mut self.rows[row_number];
        let places = Arc::make_mut(&mut row.places);
        let chunk = places.taken.iter().position(|taken| *taken != u16::MAX).expect("the row has a free place");
        let place = places.taken[chunk].trailing_ones() as usize;
        Arc::make_mut(&mut places.chunks[chunk])[place] = Some(thing);
        places.taken[chunk] |= 1 << place;
        row.taken += 1;
        self.len += 1;
        u32::try_from(row_number * ROW + chunk * CHUNK + place)
            .expect("memory ends before four thousand million things")
    }

    pub(crate) fn remove(&mut self, number: u32) {
        let number = number as usize;
        let (chunk, place) = (number / CHUNK % CHUNKS, number % CHUNK);
        let row = &mut self.rows[number / ROW];
        let places = Arc::make_mut(&mut row.places);
        Arc::make_mut(&mut places.chunks[chunk])[place] = None;
        places.taken[chunk] &= !(1 << place);
        row.taken -= 1;
        self.len -= 1;
        while self.rows.pop_if(|row| row.taken == 0).is_some() {}
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let chunks = self.rows.iter().flat_map(|row| row.places.chunks.iter());
        chunks.flat_map(|chunk| chunk.iter().flatten())
    }
}

const IN_USE: &str = "indexes name only places that are taken";

impl<T> Default for Row<T> {
    fn default() -> Self {
        let empty = Arc::new([const { None }; CHUNK]);
        let chunks = std::array::from_fn(|_| empty.clone());
        Self { taken: 0, places: Arc::new(Places { chunks, taken: [0; CHUNKS] }) }
    }
}
