import torch, torchvision, sys
torch.manual_seed(0)
m = torchvision.models.resnet50(weights=None).eval()
# statistics of normalisations from random pictures, so that activations have the sizes that they have in trained nets
m.train()
with torch.no_grad():
    for _ in range(8): m(torch.rand(8,3,224,224)*2-1)
m.eval()
torch.onnx.export(m, (torch.rand(1,3,224,224),), sys.argv[1], input_names=["input"], output_names=["logits"], dynamic_axes={"input":{0:"n"},"logits":{0:"n"}}, opset_version=17, dynamo=False)
