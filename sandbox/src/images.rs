//! The image table: which program an image name stands for.
//!
//! There is no image registry in the sandbox. The last path component of an image, without tag
//! and digest, picks one of our built binaries; every other image runs the pod's own `command`
//! from the host's file system.

use std::path::{Path, PathBuf};

/// What a container of an image runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The image's entry point, used when the container has no `command`.
    pub entrypoint: Vec<String>,
    /// Files that the image brings: absolute path in the container, file on the host.
    pub files: Vec<(PathBuf, PathBuf)>,
}

/// The programs of one sandbox.
#[derive(Debug, Clone)]
pub struct ImageTable {
    bin_dir: PathBuf,
}

/// One row: image names, program (built binary or system program), fixed arguments, files.
struct Row {
    names: &'static [&'static str],
    program: Program,
    files: &'static [(&'static str, &'static str)],
}

enum Program {
    Built(&'static str),
    System(&'static [&'static str]),
}

const TABLE: &[Row] = &[
    Row { names: &["ztunnel"], program: Program::Built("ztunnel"), files: &[] },
    Row { names: &["waypoint", "proxyv2"], program: Program::Built("waypoint"), files: &[] },
    Row { names: &["pilot", "istiod"], program: Program::Built("istiod"), files: &[] },
    Row {
        names: &["install-cni"],
        program: Program::Built("install-cni"),
        files: &[("/opt/cni/bin/istio-cni", "istio-cni")],
    },
    Row { names: &["echo"], program: Program::Built("echo"), files: &[] },
    Row { names: &["load"], program: Program::Built("load"), files: &[] },
    Row { names: &["sleep"], program: Program::System(&["sleep", "infinity"]), files: &[] },
];

/// Names under which people call a built program in `command`, as our real images have it there.
const IMAGE_BIN_DIR: &str = "/usr/local/bin";

impl ImageTable {
    /// A table over the built binaries in `bin_dir` (absolute).
    pub fn new(bin_dir: impl Into<PathBuf>) -> Self {
        Self { bin_dir: bin_dir.into() }
    }

    /// Where the built binaries are; mounted at its own path in every container.
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// Looks an image up; `None` when it is not one of ours.
    pub fn lookup(&self, image: &str) -> Option<Image> {
        let name = base_name(image);
        let row = TABLE.iter().find(|row| row.names.contains(&name))?;
        let entrypoint = match row.program {
            Program::Built(program) => vec![self.built(program)],
            Program::System(argv) => argv.iter().map(|&word| word.to_owned()).collect(),
        };
        let files =
            row.files.iter().map(|&(target, program)| (PathBuf::from(target), self.bin_dir.join(program))).collect();
        Some(Image { entrypoint, files })
    }

    /// The argument vector of a container: `command` replaces the entry point, `args` follow.
    /// `None` when the image is unknown and there is no command.
    pub fn argv(&self, image: &str, command: &[String], args: &[String]) -> Option<Vec<String>> {
        let mut argv = match command.split_first() {
            Some((program, rest)) => {
                let mut argv = vec![self.resolve(program)];
                argv.extend_from_slice(rest);
                argv
            }
            None => self.lookup(image)?.entrypoint,
        };
        argv.extend_from_slice(args);
        Some(argv)
    }

    /// `PATH` of a container without one of its own: the built binaries come last, so that they
    /// hide nothing of the system.
    pub fn search_path(&self) -> String {
        format!("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{}", self.bin_dir.display())
    }

    /// A built program called by its path in the real image becomes the built binary.
    fn resolve(&self, program: &str) -> String {
        let called = Path::new(program);
        let is_ours =
            |name: &str| TABLE.iter().any(|row| matches!(row.program, Program::Built(built) if built == name));
        match (called.parent(), called.file_name().and_then(|name| name.to_str())) {
            (Some(parent), Some(name)) if parent == Path::new(IMAGE_BIN_DIR) && is_ours(name) => self.built(name),
            _ => program.to_owned(),
        }
    }

    fn built(&self, program: &str) -> String {
        self.bin_dir.join(program).to_string_lossy().into_owned()
    }
}

/// The last path component of an image reference without tag and digest.
fn base_name(image: &str) -> &str {
    let without_digest = image.split_once('@').map_or(image, |(name, _)| name);
    let last = without_digest.rsplit_once('/').map_or(without_digest, |(_, last)| last);
    last.split_once(':').map_or(last, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> ImageTable {
        ImageTable::new("/b")
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn name_is_the_last_component_without_tag_and_digest() {
        for (image, name) in [
            ("ztunnel", "ztunnel"),
            ("docker.io/istio/ztunnel:1.2", "ztunnel"),
            ("localhost:5000/echo", "echo"),
            ("localhost:5000/x/echo:v1@sha256:00", "echo"),
            ("", ""),
        ] {
            assert_eq!(base_name(image), name, "{image}");
        }
    }

    #[test]
    fn known_images_run_the_built_binary_with_the_pods_arguments() {
        let argv = table().argv("x/ztunnel:1", &[], &words(&["proxy", "ztunnel"])).unwrap();
        assert_eq!(argv, ["/b/ztunnel", "proxy", "ztunnel"]);
        let argv = table().argv("x/pilot", &[], &words(&["discovery"])).unwrap();
        assert_eq!(argv, ["/b/istiod", "discovery"]);
        for image in ["meltemi/waypoint:0.1.0", "docker.io/istio/proxyv2:1.30"] {
            let argv = table().argv(image, &[], &words(&["proxy", "waypoint"])).unwrap();
            assert_eq!(argv, ["/b/waypoint", "proxy", "waypoint"]);
        }
        assert_eq!(table().argv("sleep", &[], &[]).unwrap(), ["sleep", "infinity"]);
    }

    #[test]
    fn a_command_replaces_the_entry_point() {
        let argv = table().argv("sleep", &words(&["sh", "-c", "x"]), &[]).unwrap();
        assert_eq!(argv, ["sh", "-c", "x"]);
        let argv = table().argv("ztunnel", &words(&["/usr/local/bin/ztunnel"]), &[]).unwrap();
        assert_eq!(argv, ["/b/ztunnel"]);
    }

    #[test]
    fn unknown_images_need_a_command() {
        assert_eq!(table().argv("nginx:1", &[], &words(&["x"])), None);
        assert_eq!(table().argv("nginx:1", &words(&["true"]), &[]).unwrap(), ["true"]);
    }

    #[test]
    fn install_cni_brings_the_plugin() {
        let image = table().lookup("istio/install-cni:1").unwrap();
        assert_eq!(image.files, [("/opt/cni/bin/istio-cni".into(), "/b/istio-cni".into())]);
    }
}
