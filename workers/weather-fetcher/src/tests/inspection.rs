//! Inspections of sources that work and of sources that do not.

use super::{noaa::Noaa, *};
use crate::inspect;

fn source(folder: &tempfile::TempDir) -> Settings {
    of(folder.path().to_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_source_that_works_has_no_problems() {
    let folder = folder_of(new_york().with_file("csv/by_station/AA000000000.csv", "not listed"));
    let inspection = inspect(&source(&folder), 5).await.unwrap();
    assert_eq!(
        (inspection.stations_listed, inspection.problems.as_slice(), inspection.warnings.as_slice()),
        (3, &[][..], &[][..])
    );
    let names: Vec<&str> = inspection.files_read.iter().map(|file| file.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["ghcnd-stations.txt", "US1NYNY0074.csv", "USW00094728.csv"], "only listed stations");
    let noaa = Noaa::start(new_york()).await.unwrap();
    for settings in each_service(&noaa) {
        let inspection = inspect(&settings, 5).await.unwrap();
        assert_eq!((inspection.stations_listed, inspection.problems.as_slice()), (3, &[][..]));
        assert!(inspection.files_read.iter().any(|file| file.contains(PARK)), "{:?}", inspection.files_read);
    }
    assert_eq!(inspect(&source(&folder), 0).await.unwrap().files_read.len(), 1);
}

#[tokio::test]
async fn left_out_rows_are_warnings_and_unusable_files_are_problems() {
    let broken = format!("{PARK},20180230,TMAX,1,,,W,2400\n{PARK},20180425,TMAX,1,,,W,2400\n");
    let data = new_york()
        .with_file(&format!("csv/by_station/{PARK}.csv"), broken)
        .with_file(&format!("csv/by_station/{GAUGE}.csv"), "<html>");
    let folder = folder_of(data);
    let inspection = inspect(&source(&folder), 10).await.unwrap();
    assert_eq!(inspection.warnings.len(), 1);
    assert_eq!((inspection.warnings[0].station.as_str(), inspection.warnings[0].samples[0].line), (PARK, 1));
    let [problem] = inspection.problems.as_slice() else { panic!("{:?}", inspection.problems) };
    assert!(problem.contains(&format!("{GAUGE}.csv, line 1: \"<html>\"")) && problem.contains("Replace"), "{problem}");
}

#[tokio::test]
async fn a_source_without_files_or_list_is_a_problem() {
    let data = || Data::empty().with_station(PARK, 40.7789, -73.9692);
    let folder = folder_of(data().with_file("csv/by_station/.gitkeep", ""));
    let inspection = inspect(&source(&folder), 10).await.unwrap();
    let [problem] = inspection.problems.as_slice() else { panic!("{:?}", inspection.problems) };
    assert!(problem.contains("no file of any of the 1 listed stations") && problem.contains(PARK), "{problem}");
    let inspection = inspect(&source(&folder_of(data())), 10).await.unwrap();
    assert!(inspection.problems[0].contains("csv/by_station: No such file"), "{:?}", inspection.problems);
    let folder = folder_of(Data::empty().with_file("csv/by_station/.gitkeep", ""));
    let inspection = inspect(&source(&folder), 10).await.unwrap();
    assert_eq!(inspection.stations_listed, 0);
    assert!(inspection.problems[0].contains("no station list at"), "{:?}", inspection.problems);
    let noaa = Noaa::start(data()).await.unwrap();
    let inspection = inspect(&of(noaa.url()), 10).await.unwrap();
    assert!(inspection.problems[0].contains("the service has none of") && inspection.problems[0].contains(PARK));
}
