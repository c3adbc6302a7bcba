//! What an operator should hear of, through `tracing` where that feature is on.

use std::fmt;
use std::path::Path;

/// Notifications do not work at all.
pub(super) fn polling_alone(reason: &dyn fmt::Display) {
    #[cfg(feature = "tracing")]
    tracing::warn!(%reason, "File notifications do not work; files are looked at once a second");
    #[cfg(not(feature = "tracing"))]
    let _ = reason;
}

/// Notifications do not work for one folder.
pub(super) fn folder_not_watched(folder: &Path, reason: &dyn fmt::Display) {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        folder = %folder.display(),
        %reason,
        "Folder gives no notifications; its files are looked at once a second"
    );
    #[cfg(not(feature = "tracing"))]
    let _ = (folder, reason);
}

/// The path leads to a file that was removed or replaced.
pub(super) fn detached(path: &Path) {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        path = %path.display(),
        "Bind-mounted file was replaced on the host; mount the directory instead"
    );
    #[cfg(not(feature = "tracing"))]
    let _ = path;
}

/// A reader panicked. Its message is not repeated: it may quote the file.
pub(super) fn panicked(path: &Path) {
    #[cfg(feature = "tracing")]
    tracing::error!(path = %path.display(), "Reader of a watched file panicked; the file counts as refused");
    #[cfg(not(feature = "tracing"))]
    let _ = path;
}
