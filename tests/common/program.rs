//! The real program in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::text;
use prost::Message;

/// A two-task model: a shared convolution, then one branch per task.
pub const TWO_TASKS: &str = "
    in x [1,3,8,8]
    t = Conv(x, trunk[16,3,3,3], trunk_bias[16], pads=[1,1,1,1])
    a1 = Conv(t, a_weight[8,16,1,1])
    a = Conv(a1, a_head[4,8,1,1])
    b1 = Conv(t, b_weight[6,16,1,1])
    b2 = Conv(b1, b_head[5,6,1,1])
    b = Add(b2, shift[5,1,1])
    out a, b";

/// What one run of the program said.
#[derive(Debug)]
pub struct Said {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A folder in which the program runs.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// An empty one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One that holds `model.onnx`, the model of two tasks.
    pub fn with_model() -> Self {
        let folder = Self::new();
        folder.model("model.onnx", TWO_TASKS);
        folder
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a model from its text form.
    pub fn model(&self, name: &str, text: &str) {
        self.proto(name, &text::parse(text).unwrap());
    }

    /// Writes a model.
    pub fn proto(&self, name: &str, model: &ModelProto) {
        fs::write(self.file(name), model.encode_to_vec()).unwrap();
    }

    /// The bytes of a file.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.file(name)).unwrap()
    }

    /// A model that was written.
    pub fn read(&self, name: &str) -> ModelProto {
        ModelProto::decode(self.bytes(name).as_slice()).unwrap()
    }

    /// The names of all files, in order.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs the program with these words.
    pub fn run(&self, words: &[&str]) -> Said {
        self.run_in(words, &[])
    }

    /// Runs the program with these words and these variables instead of those that tell where ONNX Runtime is.
    pub fn run_alone(&self, words: &[&str], variables: &[(&str, &str)]) -> Said {
        let empty = ["ORT_DYLIB_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "PATH"].map(|name| (name, ""));
        self.run_in(words, &[&empty, variables].concat())
    }

    fn run_in(&self, words: &[&str], variables: &[(&str, &str)]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onnx-mtprune"));
        let command = command.args(words).current_dir(self.path()).envs(variables.iter().copied());
        let output = command.output().unwrap();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs the program and expects success; gives what it printed.
    pub fn succeed(&self, words: &[&str]) -> String {
        let said = self.run(words);
        assert_eq!(said.code, 0, "{words:?}: {said:?}");
        said.out
    }

    /// Runs the program, expects this exit code, one `error:` line without a trace of a panic, and unchanged files;
    /// gives the line.
    pub fn fail(&self, code: i32, words: &[&str]) -> String {
        let before = self.snapshot();
        let said = self.run(words);
        assert_eq!(said.code, code, "{words:?}: {said:?}");
        assert_eq!(said.err.lines().filter(|l| l.starts_with("error:")).count(), 1, "{words:?}: {said:?}");
        for trace in ["panicked", "RUST_BACKTRACE", "unwrap", "internal error"] {
            assert!(!said.err.contains(trace), "{words:?}: {said:?}");
        }
        assert_eq!(said.out, "", "{words:?}");
        assert!(before == self.snapshot(), "{words:?} changed files: {:?}", self.names());
        said.err.lines().find(|l| l.starts_with("error:")).unwrap().to_owned()
    }

    fn snapshot(&self) -> Vec<(String, Option<Vec<u8>>)> {
        self.names().into_iter().map(|name| (name.clone(), fs::read(self.file(&name)).ok())).collect()
    }
}

/// Compares a text with a fixture, or updates the fixture with `UPDATE=1`.
pub fn fixture(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cli").join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{} differs; UPDATE=1 writes it anew", path.display());
}
