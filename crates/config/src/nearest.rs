//! The nearest right word for a mistyped one.

/// Below this similarity (Jaro-Winkler, 0 to 1) a suggestion would be a guess.
const SIMILARITY_MIN: f64 = 0.75;

/// The word of `known` that `given` most resembles, when it resembles any.
pub(crate) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|word| (strsim::jaro_winkler(given, word), word))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

/// What to tell a person who wrote `given` where one of `known` is expected.
pub(crate) fn did_you_mean(given: &str, known: &[&str]) -> String {
    let any_of = || format!("remove it, or use one of: {}", known.join(", "));
    nearest(given, known.iter().copied()).map_or_else(any_of, |word| format!("did you mean `{word}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_key() {
        let known = ["listen", "auto_create_topics", "retention_age"];
        assert_eq!(nearest("lissten", known), Some("listen"));
        assert_eq!(nearest("auto_create_topic", known), Some("auto_create_topics"));
        assert_eq!(nearest("zzz", known), None);
        assert!(did_you_mean("zzz", &known).contains("auto_create_topics"));
    }
}
