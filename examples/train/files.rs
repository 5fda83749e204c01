//! What the examples leave on the disk: files and pictures that are whole or not there.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{anyhow, Context, Result};
use plotters::prelude::*;
use plotters::style::{register_font, FontStyle};

pub const FONT: &str = "sans-serif";

pub type Area<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;

/// Writes a file as `.*.partial`, forces it to the disk and renames it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".partial");
    // As any new file; a temporary one would be its owner's alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let write = || -> io::Result<()> {
        // Removed when dropped, unless it was renamed.
        let (mut file, partial) = builder.tempfile_in(path.parent().unwrap_or(path))?.into_parts();
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

/// Draws a picture below a title and writes it as PNG, whole or not at all.
pub fn picture(
    path: &Path,
    (width, height): (u32, u32),
    title: &str,
    draw: impl FnOnce(&Area) -> Result<()>,
) -> Result<()> {
    // The pictures bring their font along: none need be installed.
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| anyhow!("the built-in font cannot be read"))?;
    let mut pixels = vec![0; 3 * width as usize * height as usize];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        root.fill(&WHITE)?;
        draw(&root.margin(12, 0, 0, 0).titled(title, (FONT, 26))?)?;
        root.present()?;
    }
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&pixels)?;
    write_whole(path, &file)
}
