//! The names of the station files of a remote source: `ID.csv` or `ID.csv.gz`.

use crate::sources::location::Location;
use parking_lot::Mutex;

/// Number of stations after which the naming of a source counts as known.
const NAMING_STATIONS: u32 = 8;

/// The naming of the station files, learned from the first stations. Afterwards a station without a file costs one request
/// instead of two.
#[derive(Debug, Default)]
pub struct FileNaming(Mutex<Counts>);

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    plain: u32,
    gzipped: u32,
    neither: u32,
}

impl FileNaming {
    /// Returns the locations to request, given those of the plain and the compressed file.
    pub fn locations(&self, [plain, gzipped]: [Location; 2]) -> Vec<Location> {
        let counts = *self.0.lock();
        let is_known = counts.plain + counts.gzipped + counts.neither >= NAMING_STATIONS;
        match (counts.plain > 0, counts.gzipped > 0) {
            (true, false) if is_known => vec![plain],
            (false, true) if is_known => vec![gzipped],
            _ => vec![plain, gzipped],
        }
    }

    /// Records which file of a station exists: the plain one, the compressed one, or neither.
    pub fn note(&self, is_gzipped: Option<bool>) {
        let mut counts = self.0.lock();
        let count = match is_gzipped {
            Some(false) => &mut counts.plain,
            Some(true) => &mut counts.gzipped,
            None => &mut counts.neither,
        };
        *count = count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_known_name_is_requested_after_eight_stations() {
        let both_locations = || ["a.csv", "a.csv.gz"].map(|name| Location::File(name.into()));
        let asked = |notes: &[Option<bool>]| {
            let naming = FileNaming::default();
            notes.iter().for_each(|note| naming.note(*note));
            naming.locations(both_locations()).iter().map(Location::to_string).collect::<Vec<_>>()
        };
        let both = ["a.csv", "a.csv.gz"];
        let after = |count: usize, first| [vec![Some(first)], vec![None; count - 1]].concat();
        assert_eq!(asked(&[]), both);
        assert_eq!(asked(&after(7, false)), both);
        assert_eq!(asked(&after(8, false)), ["a.csv"]);
        assert_eq!(asked(&after(8, true)), ["a.csv.gz"]);
        assert_eq!(asked(&[None; 100]), both, "no file exists: the naming stays unknown");
        assert_eq!(asked(&[[Some(true); 50], [Some(false); 50]].concat()), both, "a mixed source");
    }
}
