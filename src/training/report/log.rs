//! `metrics.csv`: one line for each report, one column for each figure.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use crate::{Error, Result, training::metrics::Metrics, write_file};

/// The figures of one moment in training.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Optimiser steps done.
    pub step: usize,
    /// Passes through the training data done, with fractions.
    pub epoch: f64,
    /// Further figures by name, such as `learning_rate`, `train_loss`, `grad_norm`, `tokens_per_second`.
    pub values: Vec<(String, f64)>,
}

impl Report {
    /// A report without figures.
    pub fn new(step: usize, epoch: f64) -> Self {
        Self { step, epoch, values: Vec::new() }
    }

    /// Adds a figure.
    pub fn with(mut self, name: impl Into<String>, value: f64) -> Self {
        self.values.push((name.into(), value));
        self
    }

    /// Adds all figures of an evaluation.
    pub fn with_metrics(mut self, metrics: &Metrics) -> Self {
        self.values.extend(metrics.scores().iter().map(|score| (score.name.clone(), score.value)));
        self
    }

    /// The figure with this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

/// The reports of a training run, in memory and in a CSV file. Its columns are `step`, `epoch` and one for each figure,
/// in the order of first appearance. A cell is empty if the report lacks the figure; `NaN` and `inf` are written as
/// such.
///
/// A report is in the file when [`CurveLog::append`] returns. When the file is rewritten, because of a new column or a
/// resumed run, the new file replaces the old one as a whole.
#[derive(Debug)]
pub struct CurveLog {
    path: PathBuf,
    /// Names of the figures.
    names: Vec<String>,
    reports: Vec<Report>,
}

/// The columns that every line fills.
const FIXED: [&str; 2] = ["step", "epoch"];

impl CurveLog {
    /// Starts an empty table at `path`, replacing an older file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let log = Self { path: path.into(), names: Vec::new(), reports: Vec::new() };
        log.write()?;
        Ok(log)
    }

    /// Goes on with the table at `path` when training resumes after `step` optimiser steps. Reports of later steps are
    /// removed from the file; if there is no file, the table is empty. (So a report has to be appended before its step
    /// is saved.) An incomplete last line is removed too: its report was interrupted.
    ///
    /// # Errors
    /// The file cannot be read or written, or is no such table.
    pub fn resume(path: impl Into<PathBuf>, step: usize) -> Result<Self> {
        let path = path.into();
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Self::create(path),
            text => text.map_err(Error::io("read", &path))?,
        };
        let (names, mut reports) = parse(&path, &text[..text.rfind('\n').map_or(0, |end| end + 1)])?;
        reports.retain(|report| report.step <= step);
        let log = Self { path, names, reports };
        log.write()?;
        Ok(log)
    }

    /// Adds a report.
    ///
    /// # Errors
    /// The file cannot be written, an earlier report was of a later step, or two figures of the report have one name
    /// (or one is named `step` or `epoch`). In that case the table stays as it was.
    pub fn append(&mut self, report: Report) -> Result<()> {
        self.check(&report)?;
        let known = self.names.len();
        for (name, _) in &report.values {
            if !self.names.contains(name) {
                self.names.push(name.clone());
            }
        }
        self.reports.push(report);
        let written = if self.names.len() > known { self.write() } else { self.write_last() };
        if written.is_err() {
            self.names.truncate(known);
            self.reports.pop();
        }
        written
    }

    /// All reports.
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }

    /// The points (step, value) of the figure with this name.
    pub fn points(&self, name: &str) -> Vec<(f64, f64)> {
        self.reports.iter().filter_map(|report| Some((report.step as f64, report.get(name)?))).collect()
    }

    fn check(&self, report: &Report) -> Result<()> {
        let error = |problem| Err(Error::input(format!("report of step {}", report.step), problem));
        if let Some(last) = self.reports.last().filter(|last| last.step > report.step) {
            return error(format!("step {} was reported before, expected steps in order", last.step));
        }
        let names: Vec<&str> = FIXED.into_iter().chain(report.values.iter().map(|(name, _)| name.as_str())).collect();
        match names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
            Some((_, name)) => error(format!("two figures are named `{name}`, expected different names")),
            None => Ok(()),
        }
    }

    /// Writes the whole table.
    fn write(&self) -> Result<()> {
        let header = FIXED.into_iter().map(str::to_owned).chain(self.names.iter().cloned()).collect();
        let rows = self.reports.iter().map(|report| self.row(report));
        let content = self.encode(std::iter::once(header).chain(rows))?;
        write_file(&self.path, &content)
    }

    /// Writes the last report after the others.
    fn write_last(&self) -> Result<()> {
        let content = self.encode(self.reports.last().map(|report| self.row(report)).into_iter())?;
        let mut file = OpenOptions::new().append(true).open(&self.path).map_err(Error::io("open", &self.path))?;
        let length = file.metadata().map_err(Error::io("read", &self.path))?.len();
        file.write_all(&content).map_err(|error| {
            // On a full disk, a part of the line may have been written. It is removed if possible; the error to report
            // is the first one.
            let _ = file.set_len(length);
            Error::io("write", &self.path)(error)
        })
    }

    /// The cells of a report.
    fn row(&self, report: &Report) -> Vec<String> {
        let values = self.names.iter().map(|name| report.get(name).map_or_else(String::new, |value| value.to_string()));
        [report.step.to_string(), report.epoch.to_string()].into_iter().chain(values).collect()
    }

    fn encode(&self, mut rows: impl Iterator<Item = Vec<String>>) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        let mut writer = csv::Writer::from_writer(&mut content);
        rows.try_for_each(|row| writer.write_record(row))
            .and_then(|()| Ok(writer.flush()?))
            .map_err(|error| Error::io("write", &self.path)(error.into()))?;
        drop(writer);
        Ok(content)
    }
}

/// The names of the figures and the reports of a table.
fn parse(path: &Path, text: &str) -> Result<(Vec<String>, Vec<Report>)> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let broken = |problem: String| {
        let advice = "restore the file that training wrote, or move it away to begin a new one";
        Error::file(path, format!("{problem}: {advice}"))
    };
    let header = reader.headers().map_err(|error| broken(error.to_string()))?.clone();
    if !header.iter().take(FIXED.len()).eq(FIXED) {
        return Err(broken(format!("the first columns are not {}", FIXED.join(", "))));
    }
    let names: Vec<String> = header.iter().skip(FIXED.len()).map(str::to_owned).collect();
    let mut reports = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| broken(error.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        let number = |column: usize| {
            let cell = &record[column];
            cell.parse().map_err(|_| broken(format!("line {line}: `{}` is `{cell}`, not a number", &header[column])))
        };
        let step = &record[0];
        let step = step.parse().map_err(|_| broken(format!("line {line}: `step` is `{step}`, not a whole number")))?;
        let mut report = Report::new(step, number(1)?);
        for (column, name) in (FIXED.len()..record.len()).zip(&names) {
            if !record[column].is_empty() {
                report = report.with(name, number(column)?);
            }
        }
        reports.push(report);
    }
    Ok((names, reports))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::metrics::Score;

    const TABLE: &str = "\
step,epoch,learning_rate,train_loss,accuracy
10,0.5,0.00002,0.75,
20,1,0.00001,0.5,
20,1,,,0.875
30,1.5,0,NaN,
";

    fn reports() -> Vec<Report> {
        let training =
            |step, epoch, rate, loss| Report::new(step, epoch).with("learning_rate", rate).with("train_loss", loss);
        let metrics = Metrics::new(Score::highest("accuracy", 0.875).with_baseline(0.5));
        vec![
            training(10, 0.5, 2e-5, 0.75),
            training(20, 1.0, 1e-5, 0.5),
            Report::new(20, 1.0).with_metrics(&metrics),
            training(30, 1.5, 0.0, f64::NAN),
        ]
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    /// The names of the files in a folder, to see that nothing temporary stays.
    fn files(folder: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn grows_by_lines_and_columns() {
        let folder = folder();
        let path = folder.path().join("metrics.csv");
        let mut log = CurveLog::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "step,epoch\n");
        for report in reports() {
            log.append(report).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), TABLE);
        assert_eq!(log.points("accuracy"), [(20.0, 0.875)]);
        assert_eq!(log.points("learning_rate"), [(10.0, 2e-5), (20.0, 1e-5), (30.0, 0.0)]);
        assert_eq!(files(&folder), ["metrics.csv"]);
    }

    #[test]
    fn resumes_at_a_step() {
        let folder = folder();
        let path = folder.path().join("metrics.csv");
        fs::write(&path, TABLE).unwrap();
        let mut log = CurveLog::resume(&path, 20).unwrap();
        assert_eq!(log.reports(), &reports()[..3]);
        let kept: String = TABLE.lines().take(4).map(|line| format!("{line}\n")).collect();
        assert_eq!(fs::read_to_string(&path).unwrap(), kept);

        log.append(reports().remove(3)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), TABLE);
        assert_eq!(files(&folder), ["metrics.csv"]);
    }

    #[test]
    fn forgets_a_torn_line() {
        let folder = folder();
        let path = folder.path().join("metrics.csv");
        for torn in ["3", "30,1.5,0.1,0.", "30,1.5"] {
            fs::write(&path, TABLE.to_owned() + torn).unwrap();
            assert_eq!(CurveLog::resume(&path, 99).unwrap().reports().len(), 4);
            assert_eq!(fs::read_to_string(&path).unwrap(), TABLE);
        }
    }

    #[test]
    fn resumes_where_there_is_no_table() {
        let folder = folder();
        let path = folder.path().join("metrics.csv");
        assert!(CurveLog::resume(&path, 20).unwrap().reports().is_empty());
        assert_eq!(fs::read_to_string(&path).unwrap(), "step,epoch\n");
    }

    #[test]
    fn refuses_another_file_and_leaves_it() {
        let folder = folder();
        let path = folder.path().join("metrics.csv");
        for (content, problem) in [
            ("text,label\na,b\n", "the first columns are not step, epoch"),
            ("", "the first columns are not step, epoch"),
            ("step,epoch,loss\n1,0,0.5\n2,0,x\n", "line 3: `loss` is `x`, not a number"),
            ("step,epoch\n-1,0\n", "line 2: `step` is `-1`, not a whole number"),
            ("step,epoch\n1,0,2\n", "found record with 3 fields"),
        ] {
            fs::write(&path, content).unwrap();
            let error = CurveLog::resume(&path, 9).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("metrics.csv"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn refuses_reports_that_do_not_fit() {
        let folder = folder();
        let path = folder.path().join("metrics.csv");
        let mut log = CurveLog::create(&path).unwrap();
        log.append(Report::new(10, 0.5).with("loss", 1.0)).unwrap();
        let before = fs::read_to_string(&path).unwrap();
        for (report, problem) in [
            (Report::new(9, 0.5), "report of step 9: step 10 was reported before, expected steps in order"),
            (
                Report::new(11, 0.5).with("f1", 0.0).with("f1", 1.0),
                "report of step 11: two figures are named `f1`, expected different names",
            ),
            (
                Report::new(11, 0.5).with("epoch", 0.0),
                "report of step 11: two figures are named `epoch`, expected different names",
            ),
        ] {
            assert_eq!(log.append(report).unwrap_err().to_string(), problem);
        }
        assert_eq!(log.reports().len(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }

    #[test]
    fn says_which_file_it_cannot_write() {
        let folder = folder();
        let error = CurveLog::create(folder.path().join("none/metrics.csv")).unwrap_err().to_string();
        assert!(error.starts_with("cannot create ") && error.contains("none/metrics.csv"), "{error}");

        let path = folder.path().join("metrics.csv");
        let mut log = CurveLog::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let error = log.append(Report::new(1, 0.0)).unwrap_err().to_string();
        assert!(error.starts_with("cannot open ") && error.contains("metrics.csv"), "{error}");
        assert!(log.reports().is_empty());
    }
}
