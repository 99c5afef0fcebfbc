//! `lfs getstripe`.

use std::fmt::Write as _;
use std::fs::FileType;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use kiln_fs::client::control::{self, DefaultSpread};
use kiln_fs::core::layout::{END, Part, PartKind, Stripes};
use kiln_fs::core::{Component, Layout, ObjectId, OstIndex, Pattern, Spread};

use super::{Done, Fail, attribute, print};

/// The sequence of objects of the first OST (`FID_SEQ_OST_MDT0` with its index), as Lustre numbers them.
const OBJECT_SEQUENCE: u64 = 0x1_0000_0000;

/// What is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Show {
    /// Only one thing, without its name.
    only: Option<Only>,
    /// Directories, and not what is in them.
    directory: bool,
    /// Everything below.
    recursive: bool,
}

/// One thing of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Only {
    Count,
    Size,
    Index,
    Pattern,
    Generation,
}

pub(super) fn getstripe(words: &[String]) -> Done {
    let (show, paths) = parse(words)?;
    for path in paths {
        let path = Path::new(path);
        let kind = path.symlink_metadata().map_err(|error| Fail::at(path, &error))?.file_type();
        one(path, kind, show)?;
        if kind.is_dir() && !show.directory {
            below(path, show)?;
        }
    }
    Ok(())
}

fn parse(words: &[String]) -> Result<(Show, Vec<&str>), Fail> {
    let mut show = Show::default();
    let mut paths = Vec::new();
    for word in words {
        match word.as_str() {
            "-d" | "--directory" => show.directory = true,
            "-r" | "--recursive" => show.recursive = true,
            "-q" | "--quiet" => {}
            "-c" | "--stripe-count" => show.only = Some(Only::Count),
            "-S" | "--stripe-size" => show.only = Some(Only::Size),
            "-i" | "--stripe-index" => show.only = Some(Only::Index),
            "-L" | "--layout" => show.only = Some(Only::Pattern),
            "-g" | "--generation" => show.only = Some(Only::Generation),
            option if option.starts_with('-') && option.len() > 1 => {
                return Err(Fail::usage(format!("unrecognized option '{option}'")));
            }
            path => paths.push(path),
        }
    }
    if paths.is_empty() {
        return Err(Fail::usage("a path is needed"));
    }
    Ok((show, paths))
}

/// Shows what is in a directory.
fn below(dir: &Path, show: Show) -> Done {
    let mut entries: Vec<_> =
        std::fs::read_dir(dir).and_then(Iterator::collect).map_err(|error| Fail::at(dir, &error))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(error) => return Err(Fail::at(&path, &error)),
        };
        one(&path, kind, show)?;
        if kind.is_dir() && show.recursive {
            below(&path, show)?;
        }
    }
    Ok(())
}

/// Shows one file or directory; links, pipes and the like have no layout.
fn one(path: &Path, kind: FileType, show: Show) -> Done {
    let name = path.display().to_string();
    if kind.is_dir() {
        let default: DefaultSpread = attribute::get(path, control::SPREAD)?;
        return print(&directory(&name, &default.spread, show));
    }
    if kind.is_symlink()
        || kind.is_fifo()
        || kind.is_socket()
        || kind.is_char_device()
        || kind.is_block_device()
    {
        return Ok(());
    }
    let layout: Layout = attribute::get(path, control::LAYOUT)?;
    print(&file(&name, &layout, show))
}

/// A component, as Lustre shows it.
#[derive(Debug, Clone, Copy)]
struct Shown<'l> {
    count: i32,
    stripe_bytes: u32,
    pattern: &'static str,
    generation: u32,
    index: i32,
    objects: &'l [(OstIndex, ObjectId)],
    /// It has its objects, or needs none.
    ready: bool,
}

impl Shown<'_> {
    fn of_component(component: &Component, generation: u32) -> Shown<'_> {
        match &component.pattern {
            Pattern::Inline => Shown { generation, ..Shown::inline() },
            Pattern::Raid0 { stripe_bytes, objects } if objects.is_empty() => {
                Shown::wanted(*stripe_bytes, component.wanted)
            }
            Pattern::Raid0 { stripe_bytes, objects } => Shown {
                count: objects.len() as i32,
                stripe_bytes: *stripe_bytes,
                pattern: "raid0",
                generation,
                index: objects.first().map_or(-1, |(OstIndex(index), _)| i32::from(*index)),
                objects,
                ready: true,
            },
        }
    }

    fn of_part(part: &Part) -> Shown<'static> {
        match part.kind {
            PartKind::Inline => Shown::inline(),
            PartKind::Raid0 { stripe_bytes, stripes } => Shown::wanted(stripe_bytes, stripes),
        }
    }

    fn inline() -> Shown<'static> {
        let stripe_bytes = kiln_fs::core::layout::STRIPE_BYTES_MIN;
        Shown { count: 0, stripe_bytes, pattern: "mdt", generation: 0, index: 0, objects: &[], ready: true }
    }

    fn wanted(stripe_bytes: u32, stripes: Stripes) -> Shown<'static> {
        Shown {
            count: stripes.count.map_or(-1, i32::from),
            stripe_bytes,
            pattern: "raid0",
            generation: 0,
            index: stripes.first.map_or(-1, |OstIndex(index)| i32::from(index)),
            objects: &[],
            ready: false,
        }
    }

    fn only(&self, only: Only) -> String {
        match only {
            Only::Count => self.count.to_string(),
            Only::Size => self.stripe_bytes.to_string(),
            Only::Index => self.index.to_string(),
            Only::Pattern => self.pattern.to_owned(),
            Only::Generation => self.generation.to_string(),
        }
    }

    /// The lines of a file's component, each behind `space`.
    fn lines(&self, space: &str) -> String {
        let Shown { count, stripe_bytes, pattern, generation, index, .. } = self;
        format!(
            "{space}lmm_stripe_count:  {count}\n\
             {space}lmm_stripe_size:   {stripe_bytes}\n\
             {space}lmm_pattern:       {pattern}\n\
             {space}lmm_layout_gen:    {generation}\n\
             {space}lmm_stripe_offset: {index}\n"
        )
    }

    /// The line of a directory's component; each word stands behind `space`.
    fn line(&self, space: &str) -> String {
        let Shown { count, stripe_bytes, pattern, index, .. } = self;
        format!(
            "{space}stripe_count:  {count} {space}stripe_size:   {stripe_bytes} \
             {space}pattern:       {pattern} {space}stripe_offset: {index}\n"
        )
    }
}

fn file(name: &str, layout: &Layout, show: Show) -> String {
    let shown = |component| Shown::of_component(component, layout.generation);
    if let Some(only) = show.only {
        // Of several, the last that has its objects; or the first.
        let ready = layout.components.iter().map(shown).rfind(|component| component.ready);
        let component = ready.or_else(|| layout.components.first().map(shown));
        return component.map_or_else(String::new, |component| format!("{}\n\n", component.only(only)));
    }
    if let [component] = layout.components.as_slice() {
        return format!("{name}\n{}{}\n", shown(component).lines(""), table(shown(component).objects));
    }
    let mut text = format!("{name}\n{}", header(layout.generation, layout.components.len()));
    for component in &layout.components {
        let flags = if shown(component).ready { "init" } else { "0" };
        text += &entry(&component.id.to_string(), &(component.id >> 16).to_string(), flags);
        text += &extent(component.extent.start, component.extent.end);
        text += &shown(component).lines("      ");
        text += &list(shown(component).objects);
        text.push('\n');
    }
    text
}

fn directory(name: &str, spread: &Spread, show: Show) -> String {
    if let Some(only) = show.only {
        return spread
            .parts
            .last()
            .map_or_else(String::new, |part| format!("{}\n\n", Shown::of_part(part).only(only)));
    }
    if let [part] = spread.parts.as_slice() {
        return format!("{name}\n{}\n", Shown::of_part(part).line(""));
    }
    let mut text = format!("{name}\n{}", header(0, spread.parts.len()));
    let mut start = 0;
    for part in &spread.parts {
        text += &entry("N/A", "N/A", "0");
        text += &extent(start, part.end);
        text += &Shown::of_part(part).line("      ");
        text.push('\n');
        start = part.end;
    }
    text
}

fn header(generation: u32, count: usize) -> String {
    format!("  lcm_layout_gen:    {generation}\n  lcm_mirror_count:  1\n  lcm_entry_count:   {count}\n")
}

fn entry(id: &str, mirror: &str, flags: &str) -> String {
    format!(
        "    lcme_id:             {id}\n    lcme_mirror_id:      {mirror}\n    lcme_flags:          {flags}\n"
    )
}

fn extent(start: u64, end: u64) -> String {
    let end = if end == END { "EOF".to_owned() } else { end.to_string() };
    format!("    lcme_extent.e_start: {start}\n    lcme_extent.e_end:   {end}\n")
}

/// The objects of a plain layout.
fn table(objects: &[(OstIndex, ObjectId)]) -> String {
    let mut text = String::new();
    if !objects.is_empty() {
        text.push_str("\tobdidx\t\t objid\t\t objid\t\t group\n");
    }
    for (OstIndex(ost), ObjectId(object)) in objects {
        let _ = writeln!(text, "\t{ost:6}\t{object:14}\t{object:#13x}\t{:14}", 0);
    }
    text
}

/// The objects of a component.
fn list(objects: &[(OstIndex, ObjectId)]) -> String {
    let mut text = String::new();
    if !objects.is_empty() {
        text.push_str("      lmm_objects:\n");
    }
    for (nth, (OstIndex(ost), ObjectId(object))) in objects.iter().enumerate() {
        let sequence = OBJECT_SEQUENCE | u64::from(*ost) << 16 | object >> 32;
        let low = *object as u32;
        let _ = writeln!(text, "      - {nth}: {{ l_ost_idx: {ost}, l_fid: [{sequence:#x}:{low:#x}:0x0] }}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(layout: &mut Layout) {
        for component in &mut layout.components {
            if let Pattern::Raid0 { objects, .. } = &mut component.pattern {
                *objects = vec![(OstIndex(1), ObjectId(0x2c5)), (OstIndex(0), ObjectId(0x1_0000_0002))];
            }
        }
    }

    fn spread(inline: u64) -> Spread {
        Spread::plain(inline, 1 << 20, Stripes { count: Some(2), first: None })
    }

    #[test]
    fn a_plain_file_is_shown_as_lustre_does() {
        let mut layout = spread(0).to_layout();
        placed(&mut layout);
        let expected = "\
/m/f
lmm_stripe_count:  2
lmm_stripe_size:   1048576
lmm_pattern:       raid0
lmm_layout_gen:    1
lmm_stripe_offset: 1
\tobdidx\t\t objid\t\t objid\t\t group
\t     1\t           709\t        0x2c5\t             0
\t     0\t    4294967298\t  0x100000002\t             0

";
        assert_eq!(file("/m/f", &layout, Show::default()), expected);
        let only = |only| file("/m/f", &layout, Show { only: Some(only), ..Show::default() });
        assert_eq!(
            [only(Only::Count), only(Only::Size), only(Only::Index)],
            ["2\n\n", "1048576\n\n", "1\n\n"]
        );
    }

    #[test]
    fn components_are_shown_as_lustre_does() {
        let mut layout = spread(65_536).to_layout();
        let before = file("f", &layout, Show::default());
        assert!(before.contains("lcme_flags:          0\n"), "{before}");
        assert!(before.ends_with("      lmm_stripe_offset: -1\n\n"), "{before}");
        placed(&mut layout);
        let expected = "\
f
  lcm_layout_gen:    1
  lcm_mirror_count:  1
  lcm_entry_count:   2
    lcme_id:             1
    lcme_mirror_id:      0
    lcme_flags:          init
    lcme_extent.e_start: 0
    lcme_extent.e_end:   65536
      lmm_stripe_count:  0
      lmm_stripe_size:   65536
      lmm_pattern:       mdt
      lmm_layout_gen:    1
      lmm_stripe_offset: 0

    lcme_id:             2
    lcme_mirror_id:      0
    lcme_flags:          init
    lcme_extent.e_start: 65536
    lcme_extent.e_end:   EOF
      lmm_stripe_count:  2
      lmm_stripe_size:   1048576
      lmm_pattern:       raid0
      lmm_layout_gen:    1
      lmm_stripe_offset: 1
      lmm_objects:
      - 0: { l_ost_idx: 1, l_fid: [0x100010000:0x2c5:0x0] }
      - 1: { l_ost_idx: 0, l_fid: [0x100000001:0x2:0x0] }

";
        assert_eq!(file("f", &layout, Show::default()), expected);
    }

    #[test]
    fn directories_are_shown_in_a_line() {
        let plain = directory("/m", &spread(0), Show::default());
        assert_eq!(
            plain,
            "/m\nstripe_count:  2 stripe_size:   1048576 pattern:       raid0 stripe_offset: -1\n\n"
        );
        let several = directory("/m", &spread(65_536), Show::default());
        assert!(
            several
                .starts_with("/m\n  lcm_layout_gen:    0\n  lcm_mirror_count:  1\n  lcm_entry_count:   2\n")
        );
        assert!(several.ends_with(
            "    lcme_id:             N/A\n    lcme_mirror_id:      N/A\n    lcme_flags:          0\n    \
             lcme_extent.e_start: 65536\n    lcme_extent.e_end:   EOF\n      stripe_count:  2       \
             stripe_size:   1048576       pattern:       raid0       stripe_offset: -1\n\n"
        ));
    }

    #[test]
    fn options_and_paths_are_told_apart() {
        let words = ["-d", "-c", "a"].map(str::to_owned);
        let (show, paths) = parse(&words).unwrap();
        assert_eq!((show.only, show.directory, paths), (Some(Only::Count), true, vec!["a"]));
        assert!(parse(&["-z".to_owned(), "a".to_owned()]).is_err());
        assert!(parse(&[]).is_err());
    }
}
