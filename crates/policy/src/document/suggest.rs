//! What was probably meant by a word that is not known.

/// Candidates looked at; a suggestion is not worth more time.
const CANDIDATES_MAX: usize = 10_000;

/// Returns the candidate that the word is a likely slip of, if there is one.
pub(crate) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<String> {
    let slips_max = match word.chars().count() {
        0..=2 => return None,
        3..=5 => 1,
        _ => 2,
    };
    candidates
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= slips_max)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| (1..=slips_max).contains(distance))
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// Letters to insert, remove, change, or swap with a neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, right) in b.iter().enumerate() {
            let changed = above[j] + usize::from(left != right);
            let mut best = changed.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *left == b[j - 1] && a[i - 1] == *right {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let known = ["from", "to", "tcp", "endpoints", "protocol"];
        for (word, meant) in [("form", "from"), ("tpc", "tcp"), ("endpoint", "endpoints")] {
            assert_eq!(nearest(word, known).as_deref(), Some(meant), "{word}");
        }
    }

    #[test]
    fn other_words_suggest_nothing() {
        for word in ["x", "at", "colour", "from"] {
            assert_eq!(nearest(word, ["from", "to", "tcp"]), None, "{word}");
        }
    }
}
