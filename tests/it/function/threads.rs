//! Functions on many threads.

use std::thread;

use super::*;

const THREADS: usize = 8;

/// One graph, kept; each thread differentiates it at its own leaf.
#[test]
fn threads_share_one_graph() {
    let x = doubles(&[3.0]);
    let y = cube(&x).unwrap().sum(Kind::Double);
    let workers: Vec<_> = (0..THREADS)
        .map(|_| {
            let (x, y) = (x.shallow_clone(), y.shallow_clone());
            thread::spawn(move || {
                (0..100).all(|_| values(&Tensor::run_backward(&[&y], &[&x], true, false)[0]) == [27.0])
            })
        })
        .collect();
    assert!(workers.into_iter().all(|worker| worker.join().unwrap()));
}

#[test]
fn a_graph_outlives_the_thread_that_made_it() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let drops = Arc::new(AtomicUsize::new(0));
    let counted = Counted(drops.clone());
    let made = thread::spawn(move || {
        let x = doubles(&[2.0]);
        let f = custom(
            move |ctx, x| {
                ctx.save_value(Counted(counted.0.clone()))?;
                Ok(vec![&x[0] * 5.0])
            },
            |ctx, g| Ok(vec![ctx.saved_value::<Counted>().map(|_| &g[0] * 5.0)]),
        );
        let y = f.apply(&[&x]).unwrap().remove(0);
        (x, y)
    });
    let (x, y) = made.join().unwrap();
    backward(&y).unwrap();
    assert_eq!(values(&x.grad()), [5.0]);
    assert_eq!(drops.load(Ordering::SeqCst), 0);
    thread::spawn(move || drop(y)).join().unwrap();
    assert_eq!(drops.load(Ordering::SeqCst), 2);
}

#[test]
fn each_thread_gets_its_own_error() {
    thread::scope(|scope| {
        for n in 0..THREADS {
            scope.spawn(move || {
                let own = format!("the error of thread {n}.");
                for i in 0..200 {
                    let (forward, text) = (i % 2 == 0, own.clone());
                    let fail = move |here: bool| match here {
                        true => Err(spiketrace::Error::Gradient(text.clone())),
                        false => Ok(()),
                    };
                    let fail_too = fail.clone();
                    let f = custom(
                        move |_, x| fail(forward).map(|()| vec![&x[0] * 2.0]),
                        move |_, g| fail_too(!forward).map(|()| vec![Some(g[0].copy())]),
                    );
                    let error = f.apply(&[&doubles(&[1.0])]).and_then(|y| backward(&y[0])).unwrap_err();
                    assert!(error.to_string().contains(&own), "{error} on thread {n}");
                }
            });
        }
    });
}

/// From the sixtieth on libtorch goes on in threads of its own.
#[test]
fn a_backward_that_starts_backwards_goes_a_hundred_deep() {
    fn deep(depth: usize) -> impl Fn(&Tensor) -> Result<Tensor> {
        move |x| {
            let f = custom(
                |ctx, x| {
                    ctx.save_for_backward(&[&x[0]])?;
                    Ok(vec![&x[0] * 2.0])
                },
                move |ctx, g| {
                    if depth == 0 {
                        return Ok(vec![Some(&g[0] * 2.0)]);
                    }
                    let x = ctx.saved_tensors()?[0].detach().set_requires_grad(true);
                    let y = tch::with_grad(|| Ok::<_, Error>(deep(depth - 1)(&x)?.f_sum(Kind::Double)?))?;
                    let inner = Tensor::f_run_backward(&[y], &[&x], false, false)?;
                    Ok(vec![Some(&inner[0] * &g[0])])
                },
            );
            Ok(f.apply(&[x])?.remove(0))
        }
    }
    let x = doubles(&[1.0]);
    backward(&deep(100)(&x).unwrap()).unwrap();
    assert_eq!(values(&x.grad()), [2.0]);
}
