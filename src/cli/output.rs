//! The only place that writes to standard output, and where questions are asked.

use std::io::{self, BufRead, IsTerminal, Write};

use super::args::{Format, Global};
use super::exit::{Exit, Failure};

/// How to talk to whoever called.
#[derive(Debug, Clone)]
pub(super) struct Output {
    format: Format,
    quiet: bool,
    colour: bool,
}

impl Output {
    pub(super) fn new(global: &Global) -> Self {
        // https://no-color.org: any value that is not empty switches colour off.
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self {
            format: global.output,
            quiet: global.quiet,
            colour: !global.no_color && !unwanted && io::stderr().is_terminal(),
        }
    }

    /// Writes the result of a command: `json` for scripts, or the text for people.
    pub(super) fn data(
        &self,
        json: &serde_json::Value,
        text: impl FnOnce() -> String,
    ) -> Result<Exit, Failure> {
        let mut line = match self.format {
            Format::Json => json.to_string(),
            Format::Table => text(),
        };
        if !line.is_empty() && !line.ends_with('\n') {
            line.push('\n');
        }
        self.raw(line.as_bytes())
    }

    /// Writes bytes to standard output. A reader that has gone away (`| head`) is not an error.
    pub(super) fn raw(&self, bytes: &[u8]) -> Result<Exit, Failure> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Ok(()) => Ok(Exit::Ok),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Ok),
            Err(error) => Err(error.into()),
        }
    }

    /// Says something about the work, unless told to be quiet.
    pub(super) fn say(&self, text: &str) {
        if !self.quiet {
            self.err(text);
        }
    }

    /// Says why the command failed; never silenced.
    pub(super) fn failure(&self, failure: &Failure) {
        self.complain(&failure.error.to_string());
        for cause in failure.error.chain().skip(1) {
            self.err(&format!("  because: {cause}"));
        }
    }

    /// Says what went wrong with a part; never silenced.
    pub(super) fn complain(&self, text: &str) {
        let (red, plain) = self.red();
        self.err(&format!("{red}error:{plain} {text}"));
    }

    fn red(&self) -> (&'static str, &'static str) {
        if self.colour {
            ("\x1b[31m", "\x1b[0m")
        } else {
            ("", "")
        }
    }

    /// Asks before something is written. `true` means go ahead.
    ///
    /// # Errors
    /// [`Exit::Usage`] when there is nobody to ask and `yes` was not given.
    pub(super) fn confirm(&self, question: &str, yes: bool) -> Result<bool, Failure> {
        if yes {
            return Ok(true);
        }
        if !io::stdin().is_terminal() {
            return Err(Failure::say(
                Exit::Usage,
                "there is no terminal to ask on; give --yes to go ahead, or --dry-run to only look",
            ));
        }
        self.err_part(&format!("{question} [y/N] "));
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    fn err(&self, text: &str) {
        self.err_part(&format!("{text}\n"));
    }

    fn err_part(&self, text: &str) {
        let mut err = io::stderr().lock();
        // With standard error gone there is nobody left to tell.
        drop(err.write_all(text.as_bytes()).and_then(|()| err.flush()));
    }
}

/// Lays rows out in columns, two spaces between, without trailing blanks.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(header.to_vec())];
    lines.extend(
        rows.iter()
            .map(|row| line(row.iter().map(String::as_str).collect())),
    );
    lines.join("\n")
}
