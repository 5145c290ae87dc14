use std::fs;
use std::path::Path;

use super::*;

fn table(n_styles: usize, value: f32) -> Vec<u8> {
    (0..n_styles * STYLE_LEN).flat_map(|at| (value + (at / STYLE_LEN) as f32).to_le_bytes()).collect()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn voices_lie_beside_the_network_or_its_folder() {
    for network in ["model.onnx", "onnx/model.onnx"] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), network, b"x");
        let path = folder.path().join(network);
        assert!(!is_kokoro(&path) && !is_kokoro(folder.path()));
        for (name, value) in [("bm_b", 1.0), ("af_a", 0.0), ("zf_c", 2.0)] {
            write(folder.path(), &format!("voices/{name}.bin"), &table(3, value));
        }
        assert!(is_kokoro(&path) && is_kokoro(folder.path()));
        // Voices are not for networks in other folders below.
        write(folder.path(), "other/model.onnx", b"x");
        assert!(!is_kokoro(&folder.path().join("other/model.onnx")));
        let styles = read(&network_of(folder.path()).unwrap()).unwrap();
        let names: Vec<&str> = styles.iter().map(|style| &*style.name).collect();
        assert_eq!(names, ["af_a", "bm_b"]);
        // One symbol has the first style, more than there are styles the last.
        assert_eq!([0, 1, 2, 3, 400].map(|n| styles[1].row(n)[7]), [1.0, 1.0, 2.0, 3.0, 3.0]);
    }
}

#[test]
fn voices_may_lie_in_an_archive() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "kokoro.onnx", b"x");
    let path = folder.path().join("kokoro.onnx");
    // The name tells what it should be, so that the loader can tell what is missing.
    assert!(is_kokoro(&path));
    assert!(read(&path).unwrap_err().to_string().contains("voices"));
    let tensor = |rows: usize| candle_core::Tensor::full(0.5_f32, (rows, 1, STYLE_LEN), &Device::Cpu).unwrap();
    let archive = folder.path().join("voices-v1.0.bin");
    candle_core::Tensor::write_npz(&[("ef_dora", tensor(4)), ("am_adam", tensor(2))], &archive).unwrap();
    let styles = read(&path).unwrap();
    assert_eq!(styles.iter().map(|style| &*style.name).collect::<Vec<_>>(), ["am_adam", "ef_dora"]);
    for (name, rows) in [("af_long", 1025), ("jf_alpha", 3)] {
        candle_core::Tensor::write_npz(&[(name, tensor(rows))], &archive).unwrap();
        assert!(read(&path).is_err(), "{name}");
    }
}

#[test]
fn tables_that_are_none_are_refused() {
    let nan = [table(1, 0.0), f32::NAN.to_le_bytes().repeat(STYLE_LEN)].concat();
    for bytes in [&b""[..], &table(1, 0.0)[4..], &table(1025, 0.0), &nan, b"abc"] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "model.onnx", b"x");
        write(folder.path(), "voices/af_a.bin", bytes);
        assert!(read(&folder.path().join("model.onnx")).is_err(), "{} bytes", bytes.len());
    }
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "kokoro.onnx", b"x");
    write(folder.path(), "voices.bin", b"no archive");
    assert!(read(&folder.path().join("kokoro.onnx")).is_err());
}
