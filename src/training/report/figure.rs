//! Pictures of curves, as SVG.

use std::{ops::Range, path::Path};

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::Curve;
use crate::{Error, Result, write_file};

/// A picture: panels below each other over one common horizontal axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Headline.
    pub title: String,
    /// What the horizontal axis counts, with its unit.
    pub x_label: String,
    /// From top to bottom.
    pub panels: Vec<Panel>,
}

/// One coordinate system with its curves.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// What the vertical axis measures, with its unit.
    pub y_label: String,
    /// In the order of the legend. Curves of one name have one colour in all panels.
    pub curves: Vec<Curve>,
}

/// In pixels; an SVG can be shown at any size.
const WIDTH: u32 = 1200;
const TITLE_HEIGHT: u32 = 72;
const PANEL_HEIGHT: u32 = 430;
const LEGEND_HEIGHT: u32 = 40;
const Y_AXIS_WIDTH: u32 = 105;
const X_AXIS_HEIGHT: u32 = 84;
const MARGIN: u32 = 40;
const FONT: &str = "sans-serif";
const TITLE_SIZE: u32 = 32;
const TEXT_SIZE: u32 = 26;
/// The length of the strokes in the legend.
const SAMPLE_WIDTH: i32 = 36;
/// Curves with fewer points than this have their points marked.
const MARKED_POINTS: usize = 40;

const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const GRID: RGBColor = RGBColor(0xe3, 0xe3, 0xe3);

/// Colours that can be told apart with the common kinds of colour blindness (Okabe and Ito 2008, "Color Universal
/// Design"), without their yellow, which is hard to see on white.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x00, 0x00, 0x00),
];

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type DrawingResult = std::result::Result<(), Box<dyn std::error::Error>>;

impl Figure {
    /// The picture as the text of an SVG file.
    ///
    /// # Errors
    /// There is nothing to show (no panel, or one without any finite point); a band has not one entry for each point;
    /// or the numbers are too far apart for an axis.
    pub fn svg(&self) -> Result<String> {
        let error = |problem: String| Error::input(format!("figure `{}`", self.title), problem);
        if self.panels.is_empty() {
            return Err(error("it has no panels, expected at least one".to_owned()));
        }
        let curves = || self.panels.iter().flat_map(|panel| &panel.curves);
        if let Some(curve) =
            curves().find(|curve| curve.band.as_ref().is_some_and(|band| band.len() != curve.points.len()))
        {
            return Err(error(format!("the band of `{}` has not one entry for each point", curve.name)));
        }
        let x_range = range(curves().flat_map(Curve::extent).map(|(x, _)| x), 0.0);
        let y_ranges = self.panels.iter().map(|panel| {
            let range = range(panel.curves.iter().flat_map(Curve::extent).map(|(_, y)| y), 0.05);
            range.ok_or_else(|| error(format!("the panel `{}` has no points that an axis can show", panel.y_label)))
        });
        let y_ranges = y_ranges.collect::<Result<Vec<_>>>()?;
        let x_range = x_range.ok_or_else(|| error("no axis can show steps so far apart".to_owned()))?;
        let mut text = String::new();
        self.draw(&mut text, x_range, y_ranges).map_err(|problem| error(problem.to_string()))?;
        Ok(text)
    }

    /// Writes the picture to an SVG file, replacing an older one.
    ///
    /// # Errors
    /// As for [`Self::svg`], or the file cannot be written.
    pub fn write_svg(&self, path: impl AsRef<Path>) -> Result<()> {
        write_file(path, self.svg()?.as_bytes())
    }

    fn draw(&self, text: &mut String, x_range: Range<f64>, y_ranges: Vec<Range<f64>>) -> DrawingResult {
        let mut colours = Colours::default();
        let legends: Vec<Legend> = self.panels.iter().map(|panel| Legend::new(panel, &mut colours)).collect();
        let heights: Vec<u32> = legends.iter().map(|legend| legend.height() + PANEL_HEIGHT).collect();
        let height = TITLE_HEIGHT + heights.iter().sum::<u32>() + X_AXIS_HEIGHT + MARGIN / 2;
        let canvas = SVGBackend::with_string(text, (WIDTH, height)).into_drawing_area();
        canvas.fill(&WHITE)?;
        let title = (FONT, TITLE_SIZE, FontStyle::Bold, &INK).into_text_style(&canvas);
        canvas.draw_text(
            &self.title,
            &title.pos(Pos::new(HPos::Center, VPos::Center)),
            ((WIDTH / 2) as i32, (TITLE_HEIGHT / 2) as i32),
        )?;

        let (_, mut rest) = canvas.split_vertically(TITLE_HEIGHT);
        for (index, ((panel, y_range), legend)) in self.panels.iter().zip(y_ranges).zip(&legends).enumerate() {
            let last = index + 1 == self.panels.len();
            let (area, below) = rest.split_vertically(heights[index] + if last { X_AXIS_HEIGHT } else { 0 });
            let (top, plot) = area.split_vertically(legend.height());
            legend.draw(&top)?;
            let x_label = last.then_some(self.x_label.as_str());
            panel.draw(&plot, x_range.clone(), y_range, x_label, &mut colours)?;
            rest = below;
        }
        canvas.present()?;
        Ok(())
    }
}

impl Panel {
    /// Draws the axes, with the label of the horizontal one if it is shown here, and the curves.
    fn draw(
        &self,
        canvas: &Canvas<'_>,
        x_range: Range<f64>,
        y_range: Range<f64>,
        x_label: Option<&str>,
        colours: &mut Colours,
    ) -> DrawingResult {
        let mut chart = ChartBuilder::on(canvas)
            .margin_left(MARGIN)
            .margin_right(MARGIN)
            .margin_bottom(if x_label.is_some() { 0 } else { MARGIN })
            .set_label_area_size(LabelAreaPosition::Left, Y_AXIS_WIDTH)
            .set_label_area_size(LabelAreaPosition::Bottom, if x_label.is_some() { X_AXIS_HEIGHT } else { 0 })
            .build_cartesian_2d(x_range, y_range)?;
        let text = (FONT, TEXT_SIZE, &INK).into_text_style(canvas);
        chart
            .configure_mesh()
            .max_light_lines(0)
            .bold_line_style(GRID.stroke_width(1))
            .axis_style(INK.stroke_width(1))
            .x_labels(10)
            .y_labels(6)
            .x_label_formatter(&tick)
            .y_label_formatter(&tick)
            .label_style(text)
            .x_desc(x_label.unwrap_or_default())
            .y_desc(&self.y_label)
            .draw()?;
        // All bands first: a band must not cover the line of another curve.
        for curve in &self.curves {
            let colour = colours.of(&curve.name).mix(0.18);
            chart.draw_series(curve.bands().map(|outline| Polygon::new(outline, colour)))?;
        }
        for curve in &self.curves {
            let colour = colours.of(&curve.name);
            chart.draw_series(curve.lines().map(|line| PathElement::new(line, colour.stroke_width(3))))?;
            if curve.points.len() < MARKED_POINTS {
                let points = curve.lines().flatten();
                chart.draw_series(points.map(|point| Circle::new(point, 5, colour.filled())))?;
            }
        }
        Ok(())
    }
}

/// The colour of each name; colours are given in the order of first appearance.
#[derive(Default)]
struct Colours(Vec<String>);

impl Colours {
    fn of(&mut self, name: &str) -> RGBColor {
        let index = self.0.iter().position(|known| known == name).unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        });
        PALETTE[index % PALETTE.len()]
    }
}

/// The names of a panel's curves, in rows above it.
struct Legend {
    entries: Vec<LegendEntry>,
}

struct LegendEntry {
    name: String,
    colour: RGBColor,
    position: (i32, i32),
}

impl Legend {
    fn new(panel: &Panel, colours: &mut Colours) -> Self {
        let (left, right) = ((MARGIN + Y_AXIS_WIDTH) as i32, (WIDTH - MARGIN) as i32);
        let (mut x, mut y) = (left, (LEGEND_HEIGHT / 2) as i32);
        let entry = |curve: &Curve| {
            // The width of the text in a browser is not known here; most characters are narrower than this.
            let width = SAMPLE_WIDTH + (curve.name.chars().count() as f64 * 0.5 * f64::from(TEXT_SIZE)) as i32 + 44;
            if x > left && x + width > right {
                (x, y) = (left, y + LEGEND_HEIGHT as i32);
            }
            let position = (x, y);
            x += width;
            LegendEntry { name: curve.name.clone(), colour: colours.of(&curve.name), position }
        };
        Self { entries: panel.curves.iter().map(entry).collect() }
    }

    fn height(&self) -> u32 {
        self.entries.last().map_or(0, |entry| entry.position.1 as u32 + LEGEND_HEIGHT / 2)
    }

    fn draw(&self, canvas: &Canvas<'_>) -> DrawingResult {
        let text = (FONT, TEXT_SIZE, &INK).into_text_style(canvas).pos(Pos::new(HPos::Left, VPos::Center));
        for LegendEntry { name, colour, position: (x, y) } in &self.entries {
            canvas.draw(&PathElement::new([(*x, *y), (x + SAMPLE_WIDTH, *y)], colour.stroke_width(5)))?;
            canvas.draw_text(name, &text, (x + SAMPLE_WIDTH + 10, *y))?;
        }
        Ok(())
    }
}

/// The range of an axis: from the lowest to the highest value and a share of their distance beyond. `None` if there is no
/// value, or if the distance is beyond the range of numbers.
fn range(values: impl Iterator<Item = f64>, beyond: f64) -> Option<Range<f64>> {
    let (low, high) = values.fold(None, |range: Option<(f64, f64)>, value| {
        Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
    })?;
    // A single value is in the middle of an axis whose range is of its own magnitude.
    let space = if low < high { (high - low) * beyond } else { (low.abs() / 2.0).max(0.5) };
    Some(low - space..high + space).filter(|range| (range.end - range.start).is_finite())
}

/// A number at an axis: `0.25`, `20k`, `1.5M`, `2e-5`.
fn tick(value: &f64) -> String {
    // Axes have round numbers; further digits are rounding errors.
    let short = |value: f64| {
        let digits = format!("{value:.6}");
        digits.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match value.abs() {
        ..1e-12 => "0".to_owned(),
        1e-3..1e3 => short(*value),
        1e3..1e6 => short(value / 1e3) + "k",
        1e6..1e9 => short(value / 1e6) + "M",
        size => {
            let exponent = size.log10().floor();
            format!("{}e{exponent}", short(value / 10f64.powf(exponent)))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(values: &[f64]) -> Vec<(f64, f64)> {
        values.iter().enumerate().map(|(step, &value)| (step as f64, value)).collect()
    }

    fn figure(panels: Vec<Vec<Curve>>) -> Figure {
        let panel = |curves| Panel { y_label: "Loss".to_owned(), curves };
        Figure { title: "R&D".to_owned(), x_label: "Step".to_owned(), panels: panels.into_iter().map(panel).collect() }
    }

    fn hex(RGBColor(red, green, blue): RGBColor) -> String {
        format!("#{red:02X}{green:02X}{blue:02X}")
    }

    /// How many curves (strokes of width 3) the picture has in a colour.
    fn strokes(svg: &str, colour: RGBColor) -> usize {
        let stroke = format!("stroke=\"{}\" stroke-width=\"3\"", hex(colour));
        svg.lines().filter(|line| line.starts_with("<polyline") && line.contains(&stroke)).count()
    }

    #[test]
    fn shows_title_axes_and_names() {
        let svg = figure(vec![vec![Curve::new("a < b", line(&[3.0, 2.0]))]]).svg().unwrap();
        let lines: Vec<&str> = svg.lines().collect();
        for text in ["R&amp;D", "Step", "Loss", "a &lt; b", "2.4"] {
            assert!(lines.contains(&text), "{text} is missing in {svg}");
        }
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn names_keep_their_colours_across_panels() {
        let curve = |name: &str| Curve::new(name, line(&[1.0, 2.0, 1.5]));
        let svg = figure(vec![vec![curve("a"), curve("b")], vec![curve("b")], vec![curve("c")]]).svg().unwrap();
        assert_eq!([0, 1, 2].map(|index| strokes(&svg, PALETTE[index])), [1, 2, 1]);
    }

    #[test]
    fn breaks_the_line_where_there_is_no_number() {
        let values = [3.0, 2.0, f64::NAN, 2.0, 1.0, f64::INFINITY];
        let svg = figure(vec![vec![Curve::new("loss", line(&values))]]).svg().unwrap();
        assert_eq!(strokes(&svg, PALETTE[0]), 2);
        let marks = format!("fill=\"{}\"", hex(PALETTE[0]));
        assert_eq!(svg.lines().filter(|line| line.starts_with("<circle") && line.contains(&marks)).count(), 4);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn shades_the_band() {
        let curve = Curve { band: Some(vec![(1.0, 3.0), (4.0, 4.0)]), ..Curve::new("loss", line(&[2.0, 4.0])) };
        let svg = figure(vec![vec![curve]]).svg().unwrap();
        assert_eq!(svg.lines().filter(|line| line.starts_with("<polygon")).count(), 1);
    }

    #[test]
    fn long_legends_go_on_below() {
        let curves = (0..9).map(|index| Curve::new(format!("model number {index}"), line(&[1.0, 2.0]))).collect();
        let panel = Panel { y_label: String::new(), curves };
        let legend = Legend::new(&panel, &mut Colours::default());
        assert!(legend.height() > LEGEND_HEIGHT && legend.height() < 5 * LEGEND_HEIGHT);
        assert!(legend.entries.iter().all(|entry| entry.position.0 < WIDTH as i32 - 200));
    }

    #[test]
    fn refuses_what_cannot_be_shown() {
        let error = |panels| figure(panels).svg().unwrap_err().to_string();
        assert_eq!(error(vec![]), "figure `R&D`: it has no panels, expected at least one");
        let nothing = "figure `R&D`: the panel `Loss` has no points that an axis can show";
        assert_eq!(error(vec![vec![]]), nothing);
        assert_eq!(error(vec![vec![Curve::new("loss", line(&[f64::NAN]))]]), nothing);
        assert_eq!(error(vec![vec![Curve::new("loss", line(&[f64::MAX, f64::MIN]))]]), nothing);
        let uneven = Curve { band: Some(vec![(0.0, 1.0)]), ..Curve::new("loss", line(&[1.0, 2.0])) };
        assert_eq!(error(vec![vec![uneven]]), "figure `R&D`: the band of `loss` has not one entry for each point");
    }

    #[test]
    fn writes_in_full_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curves.svg");
        std::fs::write(&path, "before").unwrap();
        figure(vec![]).write_svg(&path).unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
        let figure = figure(vec![vec![Curve::new("loss", line(&[1.0, 2.0]))]]);
        figure.write_svg(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), figure.svg().unwrap());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn ticks_are_short() {
        let cases = [
            (0.0, "0"),
            (0.30000000000000004, "0.3"),
            (-1.5e-17, "0"),
            (1.5000000000000002e-5, "1.5e-5"),
            (2000.0, "2k"),
            (-12500.0, "-12.5k"),
            (1.5e6, "1.5M"),
            (3e9, "3e9"),
        ];
        for (value, expected) in cases {
            assert_eq!(tick(&value), expected);
        }
    }

    proptest! {
        /// Whatever was measured, there is a picture or an error.
        #[test]
        fn never_panics(points in prop::collection::vec(any::<(f64, f64)>(), 0..9), scale in -300..300i32) {
            let scaled = |&(x, y): &(f64, f64)| (x.clamp(-1.0, 1.0), y.clamp(-1.0, 1.0) * 10f64.powi(scale));
            let near = points.iter().map(scaled).collect();
            let svg = figure(vec![vec![Curve::new("near", near)]]).svg();
            prop_assert!(svg.is_ok() || !points.iter().any(|(x, y)| x.is_finite() && y.is_finite()));
            let _ = figure(vec![vec![Curve::new("any", points)]]).svg();
        }
    }
}
