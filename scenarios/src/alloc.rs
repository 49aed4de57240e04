//! The allocator: mimalloc by its plain calls.
//!
//! A run allocates a hundred times for a put. The `mimalloc` crate asks for an alignment each time, which is a
//! slower way through the allocator; almost nothing needs more than every block has.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;

use libmimalloc_sys as mi;

/// See the module.
pub struct MiMalloc;

/// mimalloc aligns every block of at least this size to this.
const MIN_ALIGN: usize = 16;

fn is_plain(align: usize, size: usize) -> bool {
    align <= MIN_ALIGN && align <= size
}

// SAFETY: mimalloc's own functions, which all hand out and take blocks of the same heap; a block is aligned as its
// layout asks: by itself where `is_plain`, by request otherwise.
unsafe impl GlobalAlloc for MiMalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: any size may be asked for; an alignment is a power of two.
        let block = unsafe {
            if is_plain(align, size) {
                mi::mi_malloc(size)
            } else {
                mi::mi_malloc_aligned(size, align)
            }
        };
        block.cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as in `alloc`.
        let block = unsafe {
            if is_plain(align, size) {
                mi::mi_zalloc(size)
            } else {
                mi::mi_zalloc_aligned(size, align)
            }
        };
        block.cast()
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let (block, align) = (block.cast::<c_void>(), layout.align());
        // SAFETY: the caller's block came from here; a block of mimalloc's keeps its alignment of `MIN_ALIGN`
        // wherever it goes.
        let block = unsafe {
            if is_plain(align, new_size) && is_plain(align, layout.size()) {
                mi::mi_realloc(block, new_size)
            } else {
                mi::mi_realloc_aligned(block, new_size, align)
            }
        };
        block.cast()
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller's block came from here.
        unsafe { mi::mi_free(block.cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_as_asked_and_keep_their_bytes() {
        for align in [1, 2, 4, 8, 16, 32, 64, 4096] {
            for size in [1, 7, 8, 9, 16, 24, 100, 4096, 70_000] {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: each block is used within its size and given back once, with its layout.
                unsafe {
                    let zeroed = MiMalloc.alloc_zeroed(layout);
                    assert_eq!(zeroed as usize % align, 0, "{layout:?}");
                    assert!((0..size).all(|i| *zeroed.add(i) == 0), "{layout:?}");
                    let block = MiMalloc.alloc(layout);
                    assert_eq!(block as usize % align, 0, "{layout:?}");
                    *block.add(size - 1) = 7;
                    let larger = MiMalloc.realloc(block, layout, 3 * size);
                    assert_eq!((larger as usize % align, *larger.add(size - 1)), (0, 7));
                    MiMalloc.dealloc(larger, Layout::from_size_align(3 * size, align).unwrap());
                    MiMalloc.dealloc(zeroed, layout);
                }
            }
        }
    }
}
