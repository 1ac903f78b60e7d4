//! Linear layer y = x·Wᵀ + b with W as checkpoints store it, `[out, in]`.

use super::matmul::{Mat, MatMut, Write, matmul};

/// Rows, inputs and outputs of a linear layer, and the threads that share it.
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
}

impl Linear {
    /// y (R, O) = or += x (R, I) · w (O, I)ᵀ
    pub(crate) fn forward(&self, x: &[f32], w: &[f32], y: &mut [f32], write: Write) {
        let w = Mat::new(w, self.outputs, self.inputs).t();
        let x = Mat::new(x, self.rows, self.inputs);
        matmul(MatMut::new(y, self.rows, self.outputs), x, w, write, self.threads);
    }

    /// dx (R, I) = or += dy (R, O) · w (O, I)
    pub(crate) fn backward_input(&self, dy: &[f32], w: &[f32], dx: &mut [f32], write: Write) {
        let w = Mat::new(w, self.outputs, self.inputs);
        let dy = Mat::new(dy, self.rows, self.outputs);
        matmul(MatMut::new(dx, self.rows, self.inputs), dy, w, write, self.threads);
    }

    /// dw (O, I) += dy (R, O)ᵀ · x (R, I)
    pub(crate) fn backward_weight(&self, dy: &[f32], x: &[f32], dw: &mut [f32]) {
        let dy = Mat::new(dy, self.rows, self.outputs).t();
        let x = Mat::new(x, self.rows, self.inputs);
        matmul(MatMut::new(dw, self.outputs, self.inputs), dy, x, Write::Add, self.threads);
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
