//! Who may have how much when all want more than there is: whoever asks for little has it whole, and
//! those who ask for more have all the same (max-min fairness).

/// Returns the most that anybody may have so that all together have `room`; `None` when all fit.
pub(super) fn fair_level(claims: impl Iterator<Item = f64>, room: f64) -> Option<f64> {
    let mut claims: Vec<f64> = claims.collect();
    claims.sort_by(f64::total_cmp);
    let mut left = room;
    for (at, claim) in claims.iter().enumerate() {
        let level = left / (claims.len() - at) as f64;
        if *claim > level {
            return Some(level);
        }
        left -= claim;
    }
    None
}

/// Returns which part of a claim is under the level.
pub(super) fn part(claim: f64, level: Option<f64>) -> f64 {
    match level {
        Some(level) if claim > level => level / claim,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(claims: &[f64], room: f64) -> Option<f64> {
        fair_level(claims.iter().copied(), room)
    }

    #[test]
    fn who_asks_for_little_has_it_whole_and_the_others_share_the_rest() {
        assert_eq!(level(&[], 0.0), None);
        assert_eq!(level(&[4.0, 6.0], 10.0), None);
        assert_eq!(level(&[100.0, 2.0, 50.0], 12.0), Some(5.0));
        assert_eq!(level(&[1.0, 1.0, 1000.0], 10.0), Some(8.0));
        assert_eq!(level(&[7.0], 0.0), Some(0.0));
    }

    #[test]
    fn what_passes_is_the_room_there_is() {
        let claims = [3.0, 900.0, 41.0, 0.5, 77.0];
        for room in [1.0, 10.0, 100.0, 1000.0] {
            let level = level(&claims, room);
            let passes: f64 = claims.iter().map(|claim| claim * part(*claim, level)).sum();
            assert!((passes - room).abs() < 1e-9, "{passes} of {room}");
        }
        assert_eq!(part(5.0, None), 1.0);
    }
}
