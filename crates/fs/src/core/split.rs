//! From ranges of a file to ranges of its objects and back.

use super::ids::{ObjectId, OstIndex};
use super::layout::{Component, Extent, Layout, Pattern, Piece, Place, object_length};

/// Bytes that one request to a server is for: together at the server, one or several parts of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where the first byte is; the others follow it there.
    pub place: Place,
    /// How many bytes.
    pub len: u64,
    /// Which bytes of the file, in order. **Invariant:** their lengths sum up to `len`.
    pub parts: Vec<Extent>,
}

/// The requests for a range of a file, each for at most `bytes_max` bytes: stripes that are neighbours in their object go
/// together.
pub fn runs(layout: &Layout, extent: Extent, bytes_max: u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for piece in layout.pieces(extent.start, extent.end.saturating_sub(extent.start)) {
        let mut done = 0;
        while done < piece.len {
            let rest = behind(piece, done);
            let takes = |run: &Run| run.takes(&rest) && run.len < bytes_max;
            let nth = runs.iter().rposition(takes).unwrap_or(runs.len());
            if nth == runs.len() {
                runs.push(Run { place: rest.place, len: 0, parts: Vec::new() });
            }
            done += runs[nth].grow(&rest, bytes_max);
        }
    }
    runs
}

impl Run {
    /// Whether a piece follows at the server.
    fn takes(&self, piece: &Piece) -> bool {
        match (self.place, piece.place) {
            (
                Place::Object { ost, object, offset },
                Place::Object { ost: its_ost, object: its_object, offset: its_offset },
            ) => ost == its_ost && object == its_object && offset + self.len == its_offset,
            (Place::Inline, Place::Inline) => self.parts.last().is_none_or(|last| last.end == piece.at),
            _ => false,
        }
    }

    fn grow(&mut self, piece: &Piece, bytes_max: u64) -> u64 {
        let taken = piece.len.min(bytes_max - self.len);
        match self.parts.last_mut().filter(|last| last.end == piece.at) {
            Some(last) => last.end += taken,
            None => self.parts.push(Extent { start: piece.at, end: piece.at + taken }),
        }
        self.len += taken;
        taken
    }
}

/// What is left of a piece behind its first `done` bytes.
fn behind(piece: Piece, done: u64) -> Piece {
    let place = match piece.place {
        Place::Object { ost, object, offset } => Place::Object { ost, object, offset: offset + done },
        other => other,
    };
    Piece { at: piece.at + done, len: piece.len - done, place }
}

/// The part of an object that a range of a file fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectRange {
    /// The OST.
    pub ost: OstIndex,
    /// The object.
    pub object: ObjectId,
    /// Which of its bytes.
    pub extent: Extent,
    stripe_bytes: u64,
    stripes: u64,
    nth: u64,
}

impl ObjectRange {
    /// Where in the file a byte of the object is.
    pub fn file_offset(&self, offset: u64) -> u64 {
        let round = offset / self.stripe_bytes * self.stripes + self.nth;
        round.saturating_mul(self.stripe_bytes).saturating_add(offset % self.stripe_bytes)
    }
}

/// For each object the part of it that a range within one component fills; parts that are empty are left out. Nothing for
/// a component without objects.
pub fn object_ranges(component: &Component, extent: Extent) -> Vec<ObjectRange> {
    let Pattern::Raid0 { stripe_bytes, objects } = &component.pattern else { return Vec::new() };
    let start = extent.start.max(component.extent.start);
    let end = extent.end.min(component.extent.end);
    let (stripe_bytes, stripes) = (u64::from(*stripe_bytes), objects.len() as u64);
    let ranges = objects.iter().zip(0..).map(|(&(ost, object), nth)| {
        let part = |offset| object_length(offset, stripe_bytes, stripes, nth);
        let extent = Extent { start: part(start), end: part(end) };
        ObjectRange { ost, object, extent, stripe_bytes, stripes, nth }
    });
    ranges.filter(|range| start < end && range.extent.start < range.extent.end).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::layout::{END, STRIPE_BYTES_MIN, Spread, Stripes};

    pub(crate) fn placed(inline: u64, stripe_bytes: u32, count: u16) -> Layout {
        let stripes = Stripes { count: Some(count), first: None };
        let mut layout = Spread::plain(inline, stripe_bytes, stripes).to_layout();
        for component in &mut layout.components {
            if let Pattern::Raid0 { objects, .. } = &mut component.pattern {
                objects.extend((0..count).map(|n| (OstIndex(n), ObjectId(u64::from(n)))));
            }
        }
        layout
    }

    /// Byte by byte, by the layout's own pieces.
    fn place_of(layout: &Layout, at: u64) -> Place {
        layout.pieces(at, 1).next().expect("a layout covers everything").place
    }

    fn nth_byte(place: Place, n: u64) -> Place {
        match place {
            Place::Object { ost, object, offset } => Place::Object { ost, object, offset: offset + n },
            other => other,
        }
    }

    proptest! {
        #[test]
        fn runs_hold_every_byte_once_where_the_layout_says(
            start in 0_u64..600_000, len in 1_u64..900_000, count in 1_u16..5, inline in prop::sample::select(vec![0, 65_536_u64]),
            bytes_max in 50_000_u64..400_000,
        ) {
            let layout = placed(inline, STRIPE_BYTES_MIN, count);
            let mut parts = Vec::new();
            for run in runs(&layout, Extent { start, end: start + len }, bytes_max) {
                prop_assert!(run.len <= bytes_max);
                let mut n = 0;
                for part in &run.parts {
                    for at in [part.start, u64::midpoint(part.start, part.end), part.end - 1] {
                        prop_assert_eq!(place_of(&layout, at), nth_byte(run.place, n + at - part.start));
                    }
                    n += part.end - part.start;
                }
                prop_assert_eq!(n, run.len);
                parts.extend(run.parts);
            }
            parts.sort_by_key(|part| part.start);
            let mut at = start;
            for part in parts {
                prop_assert_eq!(part.start, at);
                at = part.end;
            }
            prop_assert_eq!(at, start + len);
        }

        #[test]
        fn ranges_of_objects_are_the_extremes_of_the_pieces(start in 0_u64..900_000, len in 1_u64..900_000, count in 1_u16..5) {
            let layout = placed(65_536, STRIPE_BYTES_MIN, count);
            let extent = Extent { start, end: start + len };
            let mut ends = vec![(u64::MAX, 0); count.into()];
            for piece in layout.pieces(start, len) {
                let Place::Object { ost, offset, .. } = piece.place else { continue };
                let (low, high) = &mut ends[usize::from(ost.0)];
                (*low, *high) = ((*low).min(offset), (*high).max(offset + piece.len));
            }
            for range in object_ranges(&layout.components[1], extent) {
                let end = std::mem::replace(&mut ends[usize::from(range.ost.0)], (u64::MAX, 0));
                prop_assert_eq!((range.extent.start, range.extent.end), end);
                for offset in [range.extent.start, range.extent.end - 1] {
                    let place = place_of(&layout, range.file_offset(offset));
                    prop_assert_eq!(place, Place::Object { ost: range.ost, object: range.object, offset });
                }
            }
            prop_assert!(ends.iter().all(|end| *end == (u64::MAX, 0)), "an object was left out");
        }
    }

    #[test]
    fn narrow_stripes_still_make_large_requests() {
        let layout = placed(0, STRIPE_BYTES_MIN, 2);
        let runs = runs(&layout, Extent { start: 0, end: 1 << 20 }, 4 << 20);
        assert_eq!(
            runs.iter().map(|run| (run.len, run.parts.len())).collect::<Vec<_>>(),
            [(512 << 10, 8); 2]
        );
    }

    #[test]
    fn what_has_no_place_and_what_has_no_end_is_split_too() {
        let layout = Spread::plain(0, STRIPE_BYTES_MIN, Stripes { count: None, first: None }).to_layout();
        let whole = runs(&layout, Extent { start: 10, end: 20 }, 100);
        assert_eq!(whole[0].place, Place::Unplaced { component: 0 });
        assert_eq!(object_ranges(&layout.components[0], Extent { start: 0, end: END }), []);
        let one = placed(0, STRIPE_BYTES_MIN, 1);
        assert_eq!(object_ranges(&one.components[0], Extent { start: 5, end: END })[0].extent.end, END);
    }
}
