//! Linear layer y = x·Wᵀ + b with W as checkpoints store it, `[out, in]`.

use super::{
    matmul::{MatMut, Write, multiply},
    panels::{Mat, Panels, Precision},
};

/// Rows, inputs and outputs of a linear layer, the threads that share it and their arithmetic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear {
    /// Rows of x and y.
    pub(crate) rows: usize,
    /// Columns of x.
    pub(crate) inputs: usize,
    /// Columns of y.
    pub(crate) outputs: usize,
    /// Threads for one product.
    pub(crate) threads: usize,
    /// Format of the factors.
    pub(crate) precision: Precision,
}

impl Linear {
    /// The same layer over other rows, on one thread: a part of a product that is shared out.
    pub(crate) fn on(self, rows: usize) -> Self {
        Self { rows, threads: 1, ..self }
    }

    /// Packs w (O, I) for [`Linear::forward`].
    pub(crate) fn pack_forward(&self, w: &[f32], panels: &mut Panels) {
        let w = Mat::new(w, self.outputs, self.inputs).t();
        panels.pack_weights(w, self.precision, self.threads);
    }

    /// Packs w (O, I) for [`Linear::backward_input`].
    pub(crate) fn pack_backward(&self, w: &[f32], panels: &mut Panels) {
        let w = Mat::new(w, self.outputs, self.inputs);
        panels.pack_weights(w, self.precision, self.threads);
    }

    /// y (R, O) = or += x (R, I) · w (O, I)ᵀ
    pub(crate) fn forward(&self, x: &[f32], w: &Panels, y: &mut [f32], write: Write) {
        let x = Mat::new(x, self.rows, self.inputs);
        multiply(MatMut::new(y, self.rows, self.outputs), x, w, write, self.threads);
    }

    /// dx (R, I) = or += dy (R, O) · w (O, I)
    pub(crate) fn backward_input(&self, dy: &[f32], w: &Panels, dx: &mut [f32], write: Write) {
        let dy = Mat::new(dy, self.rows, self.outputs);
        multiply(MatMut::new(dx, self.rows, self.inputs), dy, w, write, self.threads);
    }
}

/// y (R, O) += b (O), row by row.
pub(crate) fn add_bias(y: &mut [f32], bias: &[f32]) {
    for row in y.chunks_exact_mut(bias.len()) {
        for (y, b) in row.iter_mut().zip(bias) {
            *y += b;
        }
    }
}

/// db (O) += the column sums of dy (R, O).
pub(crate) fn add_bias_backward(dy: &[f32], db: &mut [f32]) {
    for row in dy.chunks_exact(db.len()) {
        for (d, g) in db.iter_mut().zip(row) {
            *d += g;
        }
    }
}
