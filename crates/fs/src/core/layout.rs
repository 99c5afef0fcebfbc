//! Where the bytes of a file are.
//!
//! A layout is a list of components, each with an extent of the file and a pattern. Today a file has at most one inline
//! component (its first bytes, on the MDT) and one or more striped ones; mirrors and archived copies are further
//! components over the same extent, and need no new format.

use serde::{Deserialize, Serialize};

use super::ids::{ObjectId, OstIndex};

/// The end of a component that has none.
pub const END: u64 = u64::MAX;
/// The smallest stripe, and what stripe sizes are multiples of (Lustre's `LOV_MIN_STRIPE_SIZE`).
pub const STRIPE_BYTES_MIN: u32 = 64 << 10;
/// The largest stripe.
pub const STRIPE_BYTES_MAX: u32 = 1 << 30;
/// Stripes of one component.
pub const STRIPES_MAX: usize = 2000;
/// Components of one layout.
pub const COMPONENTS_MAX: usize = 32;
/// The longest inline component.
pub const INLINE_BYTES_MAX: u64 = 1 << 20;

/// A stretch of a file: from `start`, up to and without `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// First byte behind it, or [`END`].
    pub end: u64,
}

/// How the bytes of a component are spread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pattern {
    /// On the MDT, beside the attributes (Lustre's data-on-MDT).
    Inline,
    /// Stripe after stripe over objects, round robin by the offset in the file.
    Raid0 {
        /// Bytes of a stripe.
        stripe_bytes: u32,
        /// The objects in the order of the stripes; empty until the component is first written.
        objects: Vec<(OstIndex, ObjectId)>,
    },
}

/// A part of a layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Its number within the layout; mirror in the upper 16 bits.
    pub id: u32,
    /// The bytes it is for.
    pub extent: Extent,
    /// How they are spread.
    pub pattern: Pattern,
    /// How it was asked for: where objects go when it is first written.
    pub wanted: Stripes,
}

/// How many stripes a component shall have, and where they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stripes {
    /// Number of stripes; `None` is one for each OST (`lfs setstripe -c -1`).
    pub count: Option<u16>,
    /// The OST of the first stripe; `None` lets the MDS choose (`-i -1`).
    pub first: Option<OstIndex>,
}

/// The layout of a file. **Invariant:** components of one mirror are in order and cover the file from 0 to [`END`]
/// without overlap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Goes up with every change; I/O under an older layout is refused.
    pub generation: u32,
    /// The parts.
    pub components: Vec<Component>,
}

/// A layout that is asked for: of a new file, or the default of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// The parts, each up to its end, the last to [`END`].
    pub parts: Vec<Part>,
}

/// One component that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Where it ends.
    pub end: u64,
    /// Its pattern.
    pub kind: PartKind,
}

/// The pattern that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartKind {
    /// On the MDT.
    Inline,
    /// Striped.
    Raid0 {
        /// Bytes of a stripe.
        stripe_bytes: u32,
        /// How many, and from where.
        stripes: Stripes,
    },
}

/// A layout that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSpread {
    /// No part, or too many.
    #[error("a layout has 1 to {COMPONENTS_MAX} components")]
    Count,
    /// The ends do not ascend to the end of the file.
    #[error("components must end one behind the other, the last at the end of the file (-E -1)")]
    Ends,
    /// An inline part that does not come first, or is too long.
    #[error("the component on the MDT comes first and is at most {INLINE_BYTES_MAX} bytes")]
    Inline,
    /// A stripe size out of bounds.
    #[error("stripe sizes are multiples of {STRIPE_BYTES_MIN} bytes, up to {STRIPE_BYTES_MAX}")]
    StripeSize,
    /// A number of stripes out of bounds.
    #[error("a component has 1 to {STRIPES_MAX} stripes, or -1 for one on each OST")]
    StripeCount,
}

/// Where a piece of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the MDT, at the same offset.
    Inline,
    /// In an object, at this offset.
    Object {
        /// The OST.
        ost: OstIndex,
        /// The object.
        object: ObjectId,
        /// The offset in it.
        offset: u64,
    },
    /// Nowhere yet: reads as zeros; the component must get its objects before it is written.
    Unplaced {
        /// The index of the component.
        component: usize,
    },
}

/// Some bytes of a file that are in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The offset in the file.
    pub at: u64,
    /// How many bytes.
    pub len: u64,
    /// Where they are.
    pub place: Place,
}

impl Spread {
    /// Small files on the MDT up to `inline_bytes` (0 for none), the rest in stripes.
    pub fn plain(inline_bytes: u64, stripe_bytes: u32, stripes: Stripes) -> Spread {
        let striped = Part { end: END, kind: PartKind::Raid0 { stripe_bytes, stripes } };
        let inline = (inline_bytes > 0).then_some(Part { end: inline_bytes, kind: PartKind::Inline });
        Spread { parts: inline.into_iter().chain([striped]).collect() }
    }

    /// Whether it can be.
    pub fn check(&self) -> Result<(), BadSpread> {
        if self.parts.is_empty() || self.parts.len() > COMPONENTS_MAX {
            return Err(BadSpread::Count);
        }
        let ends = || self.parts.iter().map(|part| part.end);
        let ascend = ends().zip(ends().skip(1)).all(|(a, b)| a < b);
        if !ascend || ends().next() == Some(0) || ends().next_back() != Some(END) {
            return Err(BadSpread::Ends);
        }
        for (nth, part) in self.parts.iter().enumerate() {
            match part.kind {
                PartKind::Inline if nth > 0 || part.end > INLINE_BYTES_MAX => return Err(BadSpread::Inline),
                PartKind::Inline => {}
                PartKind::Raid0 { stripe_bytes, stripes } => {
                    let fits = (STRIPE_BYTES_MIN..=STRIPE_BYTES_MAX).contains(&stripe_bytes);
                    if !fits || stripe_bytes % STRIPE_BYTES_MIN != 0 {
                        return Err(BadSpread::StripeSize);
                    }
                    if stripes.count.is_some_and(|count| count == 0 || usize::from(count) > STRIPES_MAX) {
                        return Err(BadSpread::StripeCount);
                    }
                }
            }
        }
        Ok(())
    }

    /// The layout of a new file: no component has objects yet.
    pub fn to_layout(&self) -> Layout {
        let mut start = 0;
        let components = self.parts.iter().zip(1..).map(|(part, id)| {
            let extent = Extent { start, end: part.end };
            start = part.end;
            let (pattern, wanted) = match part.kind {
                PartKind::Inline => (Pattern::Inline, Stripes { count: None, first: None }),
                PartKind::Raid0 { stripe_bytes, stripes } => {
                    (Pattern::Raid0 { stripe_bytes, objects: Vec::new() }, stripes)
                }
            };
            Component { id, extent, pattern, wanted }
        });
        Layout { generation: 1, components: components.collect() }
    }
}

impl Component {
    /// It must get objects before it is written.
    pub fn lacks_objects(&self) -> bool {
        matches!(&self.pattern, Pattern::Raid0 { objects, .. } if objects.is_empty())
    }
}

impl Layout {
    /// The pieces of `len` bytes from `offset`, in order. A range beyond the largest offset is cut.
    pub fn pieces(&self, offset: u64, len: u64) -> Pieces<'_> {
        Pieces { layout: self, at: offset, end: offset.saturating_add(len) }
    }

    /// Every object.
    pub fn objects(&self) -> impl Iterator<Item = (OstIndex, ObjectId)> + '_ {
        self.components.iter().flat_map(|component| match &component.pattern {
            Pattern::Inline => [].iter().copied(),
            Pattern::Raid0 { objects, .. } => objects.iter().copied(),
        })
    }

    /// Bytes at the front that are on the MDT.
    pub fn inline_bytes(&self) -> u64 {
        let first = self.components.first().filter(|component| component.pattern == Pattern::Inline);
        first.map_or(0, |component| component.extent.end)
    }

    /// For each object with bytes from `size` on, the length that it keeps when the file is cut to `size`.
    pub fn cut(&self, size: u64) -> Vec<(OstIndex, ObjectId, u64)> {
        let mut kept = Vec::new();
        for component in &self.components {
            let Pattern::Raid0 { stripe_bytes, objects } = &component.pattern else { continue };
            if component.extent.end <= size {
                continue;
            }
            let count = objects.len() as u64;
            for (&(ost, object), nth) in objects.iter().zip(0..) {
                kept.push((ost, object, object_length(size, u64::from(*stripe_bytes), count, nth)));
            }
        }
        kept
    }

    /// Every object of a file of `size` bytes, each with the most that it holds, in bytes.
    pub fn object_lengths(&self, size: u64) -> impl Iterator<Item = (OstIndex, ObjectId, u64)> + '_ {
        self.components.iter().flat_map(move |component| {
            let (stripe, objects) = match &component.pattern {
                Pattern::Inline => (1, &[][..]),
                Pattern::Raid0 { stripe_bytes, objects } => (u64::from(*stripe_bytes), objects.as_slice()),
            };
            let (end, count) = (component.extent.end.min(size), objects.len() as u64);
            let lengths = objects.iter().zip(0..);
            lengths.map(move |(&(ost, object), nth)| {
                // One that begins behind the end of the file holds nothing.
                let len =
                    if component.extent.start < size { object_length(end, stripe, count, nth) } else { 0 };
                (ost, object, len)
            })
        })
    }

    /// The most that the objects of a file of `size` bytes use, in bytes, where a disk gives space by such units.
    pub fn object_space_max(&self, size: u64, unit: u64) -> u64 {
        let mut sum = 0_u64;
        for component in &self.components {
            let Pattern::Raid0 { stripe_bytes, objects } = &component.pattern else { continue };
            let (start, end) = (component.extent.start.min(size), component.extent.end.min(size));
            for (_, nth) in objects.iter().zip(0..) {
                let len = |size| object_length(size, u64::from(*stripe_bytes), objects.len() as u64, nth);
                let units = len(end).div_ceil(unit) - (len(start) / unit);
                sum = sum.saturating_add(units.saturating_mul(unit));
            }
        }
        sum
    }
}

/// How much of the `nth` of `count` objects a file of `size` bytes fills.
pub(super) fn object_length(size: u64, stripe: u64, count: u64, nth: u64) -> u64 {
    let (stripes, rest) = (size / stripe, size % stripe);
    let (rounds, last) = (stripes / count, stripes % count);
    let whole = rounds * stripe;
    match nth.cmp(&last) {
        std::cmp::Ordering::Less => whole + stripe,
        std::cmp::Ordering::Equal => whole + rest,
        std::cmp::Ordering::Greater => whole,
    }
}

/// See [`Layout::pieces`].
#[derive(Clone, Debug)]
pub struct Pieces<'l> {
    layout: &'l Layout,
    at: u64,
    end: u64,
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.at >= self.end {
            return None;
        }
        let at = self.at;
        let holds = |component: &Component| component.extent.start <= at && at < component.extent.end;
        let index = self.layout.components.iter().position(holds)?;
        let component = &self.layout.components[index];
        let mut end = self.end.min(component.extent.end);
        let place = match &component.pattern {
            Pattern::Inline => Place::Inline,
            Pattern::Raid0 { objects, .. } if objects.is_empty() => Place::Unplaced { component: index },
            Pattern::Raid0 { stripe_bytes, objects } => {
                let (stripe, count) = (u64::from(*stripe_bytes), objects.len() as u64);
                let number = at / stripe;
                if count > 1 {
                    end = end.min((number + 1).saturating_mul(stripe));
                }
                let (ost, object) = objects[(number % count) as usize];
                let offset = number / count * stripe + at % stripe;
                Place::Object { ost, object, offset }
            }
        };
        self.at = end;
        Some(Piece { at, len: end - at, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB64: u32 = 64 << 10;

    fn striped(inline: u64, count: u16) -> Layout {
        let stripes = Stripes { count: Some(count), first: None };
        let spread = Spread::plain(inline, KIB64, stripes);
        assert_eq!(spread.check(), Ok(()));
        let mut layout = spread.to_layout();
        for component in &mut layout.components {
            if let Pattern::Raid0 { objects, .. } = &mut component.pattern {
                objects.extend((0..count).map(|n| (OstIndex(n), ObjectId(100 + u64::from(n)))));
            }
        }
        layout
    }

    #[test]
    fn pieces_go_round_the_objects() {
        let layout = striped(0, 2);
        let stripe = u64::from(KIB64);
        let pieces: Vec<_> = layout.pieces(stripe / 2, 3 * stripe).collect();
        let lens: Vec<_> = pieces.iter().map(|piece| piece.len).collect();
        assert_eq!(lens, [stripe / 2, stripe, stripe, stripe / 2]);
        let object =
            |n: u16, offset| Place::Object { ost: OstIndex(n), object: ObjectId(100 + u64::from(n)), offset };
        let places: Vec<_> = pieces.iter().map(|piece| piece.place).collect();
        assert_eq!(places, [object(0, stripe / 2), object(1, 0), object(0, stripe), object(1, stripe)]);
    }

    #[test]
    fn pieces_cover_the_range_once_and_bytes_meet_nowhere() {
        for count in [1, 2, 3, 7] {
            let layout = striped(100_000, count);
            let mut at = 12_345;
            let mut seen = std::collections::HashSet::new();
            for piece in layout.pieces(at, 3_000_000) {
                assert_eq!(piece.at, at);
                at += piece.len;
                let Place::Object { object, offset, .. } = piece.place else {
                    assert_eq!(piece.place, Place::Inline);
                    continue;
                };
                for block in offset / 1000..(offset + piece.len).div_ceil(1000) {
                    seen.insert((object, block));
                }
            }
            assert_eq!(at, 3_012_345);
            assert!(seen.len() as u64 >= (3_012_345 - 100_000) / 1000);
        }
    }

    #[test]
    fn one_stripe_is_one_piece_and_no_objects_are_no_place() {
        assert_eq!(striped(0, 1).pieces(5, 1 << 40).count(), 1);
        let empty = Spread::plain(4096, KIB64, Stripes { count: None, first: None }).to_layout();
        let places: Vec<_> = empty.pieces(0, 8192).map(|piece| piece.place).collect();
        assert_eq!(places, [Place::Inline, Place::Unplaced { component: 1 }]);
        assert_eq!(empty.pieces(u64::MAX - 1, u64::MAX).map(|piece| piece.len).sum::<u64>(), 1);
    }

    #[test]
    fn cutting_keeps_what_the_file_still_fills() {
        for count in [1_u16, 2, 3, 5] {
            let layout = striped(0, count);
            for size in [0, 1, u64::from(KIB64), u64::from(KIB64) * 5 + 17, u64::from(KIB64) * 10] {
                let mut ends = vec![0; count.into()];
                for piece in layout.pieces(0, size) {
                    let Place::Object { ost, offset, .. } = piece.place else { unreachable!() };
                    ends[usize::from(ost.0)] = offset + piece.len;
                }
                let kept: Vec<_> = layout.cut(size).into_iter().map(|(_, _, len)| len).collect();
                assert_eq!(kept, ends, "{size} over {count}");
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let raid0 =
            |stripe_bytes, count| PartKind::Raid0 { stripe_bytes, stripes: Stripes { count, first: None } };
        let cases: [(&[(u64, PartKind)], BadSpread); 6] = [
            (&[], BadSpread::Count),
            (&[(4096, raid0(KIB64, None))], BadSpread::Ends),
            (&[(8192, raid0(KIB64, None)), (4096, raid0(KIB64, None))], BadSpread::Ends),
            (&[(4096, raid0(KIB64, None)), (END, PartKind::Inline)], BadSpread::Inline),
            (&[(END, raid0(1000, None))], BadSpread::StripeSize),
            (&[(END, raid0(KIB64, Some(0)))], BadSpread::StripeCount),
        ];
        for (parts, error) in cases {
            let parts = parts.iter().map(|&(end, kind)| Part { end, kind }).collect();
            assert_eq!(Spread { parts }.check(), Err(error));
        }
    }
}
