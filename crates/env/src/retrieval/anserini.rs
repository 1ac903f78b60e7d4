//! Scores as Anserini reports them.

use super::search::Hit;

/// Rewrites the scores of a ranking, best first, as Anserini (and Pyserini, and what stands on them)
/// reports them: to four decimals, and each that is not more than 0.0001 below the one before it
/// lowered by a millionth for every such one in a row, so that no two are equal.
///
/// The order is that of the true scores and stays.
pub fn anserini_scores(hits: &mut [Hit]) {
    let mut before = None;
    let mut row = 0u32;
    for hit in hits {
        // Rounds halves up, as `Math.round` does.
        let mut score = ((f64::from(hit.score) * 1e4 + 0.5).floor() / 1e4) as f32;
        match before {
            Some(before) if before - score <= 1e-4_f32 => {
                row += 1;
                score -= 1e-6_f32 * row as f32;
            }
            _ => row = 0,
        }
        hit.score = score;
        before = Some(score);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_become_different() {
        let mut hits = [16.87083, 16.87083, 16.87079, 16.8247].map(|score| Hit { doc: 0, score });
        anserini_scores(&mut hits);
        assert_eq!(hits.map(|hit| hit.score), [16.8708, 16.8708 - 1e-6, 16.8708 - 2e-6, 16.8247]);
    }
}
