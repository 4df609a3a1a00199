//! What a build shows of itself: the page of `--timings`, held against a browser, and the kinds of `--progress`.

mod page;
mod progress;
mod support;
