#!/usr/bin/env bash
# Notebooks as the repository stores them: without outputs, and without what papermill and JupyterLab
# note down while running (times, widgets, the kernel's version).
#
#   jobs/local/strip.sh NOTEBOOK…            strips them where they are
#   jobs/local/strip.sh --verify NOTEBOOK…   fails where one is not stripped
#   jobs/local/strip.sh <IN >OUT             as git does where it compares and commits (jobs/lab.sh)
set -euo pipefail
PATH=$(dirname "$0")/../../.venv/bin:$PATH

keys="metadata.papermill cell.metadata.papermill cell.metadata.execution"
for key in codemirror_mode file_extension mimetype nbconvert_exporter pygments_lexer version; do
  keys+=" metadata.language_info.$key"
done
exec nbstripout --keep-id --extra-keys "$keys" "$@"
