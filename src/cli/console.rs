//! What reaches the terminal: the page on stdout, progress and warnings on stderr, and the clock of the stages.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use onnx_mtprune::report::Stage;
use onnx_mtprune::{Error, Result};

/// Where a command speaks, and how much.
pub(crate) struct Console {
    quiet: bool,
    pub(crate) verbose: bool,
    stages: Vec<Stage>,
}

impl Console {
    pub(crate) fn new(quiet: bool, verbose: bool) -> Self {
        Self { quiet, verbose, stages: Vec::new() }
    }

    /// Runs a stage under a spinner and notes how long it took.
    pub(crate) fn stage<T>(&mut self, name: &str, work: impl FnOnce() -> T) -> T {
        let spinner = if self.quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        if !spinner.is_hidden() {
            let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
            spinner.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            spinner.set_message(name.to_owned());
            spinner.enable_steady_tick(Duration::from_millis(100));
        }
        let start = Instant::now();
        let result = work();
        let seconds = start.elapsed().as_secs_f64();
        spinner.finish_and_clear();
        self.stages.push(Stage { stage: name.to_owned(), seconds });
        result
    }

    /// The stages so far.
    pub(crate) fn stages(&self) -> Vec<Stage> {
        self.stages.clone()
    }

    /// The width of the terminal on stdout; none if it is none, so that files and pipes get whole names.
    pub(crate) fn width(&self) -> Option<usize> {
        let terminal = console::Term::stdout();
        // A terminal that does not tell its width has the usual one.
        terminal.is_term().then(|| terminal.size_checked().map_or(80, |(_, columns)| usize::from(columns)))
    }

    /// Prints a page on stdout. A reader that has seen enough (`| head`) is no error.
    pub(crate) fn print(&self, page: &str) -> Result<()> {
        if self.quiet {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        match out.write_all(page.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(Error::input("cannot print to the standard output").because(error))
            }
            _ => Ok(()),
        }
    }

    /// Says what was chosen for the user.
    pub(crate) fn note(&self, message: &str) {
        if !self.quiet {
            say("note", message);
        }
    }

    /// Says something that is no error.
    pub(crate) fn warn(&self, message: &str) {
        if !self.quiet {
            say("warning", message);
        }
    }
}

/// Says what went wrong.
pub(crate) fn error(error: &Error) {
    say("error", &error.to_string());
}

/// One line on stderr. Names in files and messages of others may hold line breaks and what steers a terminal.
fn say(kind: &str, message: &str) {
    let line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // Nobody can be told that stderr is closed.
    let _ = writeln!(std::io::stderr(), "{kind}: {}", line.trim_end());
}
