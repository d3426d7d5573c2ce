fn main(){
 let fds = protox::compile(["onnx-ml.proto"], ["/work/main/proto"]).unwrap();
 let mut c = prost_build::Config::new(); c.out_dir("/tmp/gen"); c.bytes([".onnx.TensorProto.raw_data"]); c.compile_fds(fds).unwrap();
}
